"""A process of ``ranker.scoring.processes``: loads a model on its device and answers questions about it."""

from __future__ import annotations

import pickle

from ranker.loading import load
from ranker.scoring.processes import pipes, portable, serve, write


def main() -> None:
    """Load what the first message names, and answer the others."""
    questions, answers = pipes()
    try:
        _, path, options = pickle.load(questions)
        scorer = load(path, **options).scorer
    except EOFError:
        return
    except Exception as error:  # it is raised where the model was asked for
        write(answers, ("error", portable(error)))
        return
    write(answers, ("value", scorer.info))
    serve(scorer, questions, answers)


if __name__ == "__main__":
    main()
