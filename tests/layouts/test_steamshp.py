"""SteamSHP's question: A or B."""

from tests.support.layouts import ids, layout


def test_every_ordered_pair_is_a_question():
    packed = layout("steamshp").pack(ids(100), [ids(200), ids(300, 301)])
    assert [row.ids.tolist() for row in packed.rows] == [
        [10, 100, 11, 200, 12, 300, 301, 13, 14],
        [10, 100, 11, 300, 301, 12, 200, 13, 14],
    ]
    assert packed.rows[0].blocks.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert packed.rows[0].positions.tolist() == list(range(9))


def test_a_lone_candidate_is_read_against_the_empty_answer_in_both_orders():
    packed = layout("steamshp").pack(ids(100), [ids(200)])
    assert packed.with_reference
    assert [row.ids.tolist() for row in packed.rows] == [
        [10, 100, 11, 200, 12, 15, 13, 14],
        [10, 100, 11, 15, 12, 200, 13, 14],
    ]


def test_the_flags_of_a_lone_candidate_are_its_own():
    packed = layout("steamshp").pack(ids(100), [ids(*range(200, 300))])
    assert packed.truncated.tolist() == [True]


def test_several_candidates_need_no_reference():
    assert not layout("steamshp").pack(ids(100), [ids(200), ids(201)]).with_reference


def test_the_cost_of_a_lone_candidate_counts_the_empty_answer():
    assert layout("steamshp").cost(1, [1]) == (2, 8)


def test_line_breaks_are_structure():
    assert layout("steamshp").one_line
