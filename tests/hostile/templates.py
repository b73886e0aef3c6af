"""Chat templates that run for ever, fill the memory, or reach for Python's objects."""

from __future__ import annotations

from typing import Final

GROW: Final = "{% set n = namespace(s='x' * 1000) %}{% for i in range(60) %}"

TEMPLATES: Final = {
    "nested loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "loops over texts": "{% for a in 'x' * 99999 %}{% for b in 'x' * 99999 %}{% endfor %}{% endfor %}",
    "loop with output": "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "very long range": "{% for a in range(10**12) %}x{% endfor %}",
    "repeated text": "{{ 'x' * 10**10 }}",
    "repeated list": "{{ ([0] * 10**10)|length }}",
    "large power": "{{ 9 ** 9 ** 9 ** 9 }}",
    "power in a loop": "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x ** 9 %}{% endfor %}{{ n.x }}",
    "product in a loop": "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "doubled by ~": GROW + "{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "doubled by +": GROW + "{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    "doubled by join": GROW + "{% set n.s = [n.s, n.s]|join %}{% endfor %}{{ n.s }}",
    "doubled by format": GROW + "{% set n.s = '%s%s'|format(n.s, n.s) %}{% endfor %}{{ n.s }}",
    "doubled by .format": GROW + "{% set n.s = '{0}{0}'.format(n.s) %}{% endfor %}{{ n.s }}",
    "doubled by %": GROW + "{% set n.s = '%s%s' % (n.s, n.s) %}{% endfor %}{{ n.s }}",
    "doubled by replace": GROW + "{% set n.s = n.s|replace('x', 'xx') %}{% endfor %}{{ n.s }}",
    "doubled by .replace": GROW + "{% set n.s = n.s.replace('x', 'xx') %}{% endfor %}{{ n.s }}",
    "doubled by set": GROW + "{% set t %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = t %}{% endfor %}{{ n.s }}",
    "doubled list": GROW + "{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s|string }}",
    "wide by %": "{{ '%0999999999d' % 1 }}",
    "wide by format": "{{ '%999999999s'|format('x') }}",
    "wide by .format": "{{ '{:>999999999}'.format('x') }}",
    "wide by center": "{{ 'x'|center(999999999) }}",
    "wide by .center": "{{ 'x'.center(999999999) }}",
    "wide by .ljust": "{{ 'x'.ljust(999999999) }}",
    "wide by .zfill": "{{ 'x'.zfill(999999999) }}",
    "wide by indent": "{{ ('x\\n' * 1000)|indent(999999999) }}",
    "wide tojson": "{{ [1, [2, [3]]]|tojson(indent=999999999) }}",
    "recursive macro": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "branching macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "macro with output": "{% macro f() %}{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}{% endmacro %}{{ f() }}",
    "recursive loop": "{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "recursive call": "{% macro f() %}{% call f() %}{% endcall %}{{ caller() }}{% endmacro %}{% call f() %}{% endcall %}",
    "deep expression": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep list": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "deep if": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "long sum": "{{ " + "+".join(["1"] * 20_000) + " }}",
    "long source": "x" * 10_000_000,
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class by format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "globals of namespace": "{{ namespace.__init__.__globals__ }}",
    "name on a namespace": "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "code of a macro": "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "module": "{{ self.__init__.__globals__ }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as p %}",
    "extends": "{% extends '/etc/passwd' %}",
    "message's code": "{{ messages[0].__class__.__base__ }}",
    "changed message": "{{ messages.append(1) }}",
    "strftime": "{{ strftime_now('%' * 9000000) }}",
    "strftime wide": "{{ strftime_now('%999999999d') }}",
    "large slice": "{{ range(99999)|batch(1)|list|string * 1000 }}",
    "sum of lists": "{{ ([[1] * 99999] * 99999)|sum(start=[])|length }}",
    "sorted": "{% for i in range(99999) %}{{ ('x' * 99999)|sort|length }}{% endfor %}",
    "reversed": "{% for i in range(99999) %}{{ ('x' * 99999)|reverse|length }}{% endfor %}",
    "not closed": "{% for a in b %}",
    "unknown tag": "{% debug %}",
    "unknown filter": "{{ 1|nothing }}",
}
"""Each is refused within a second, in a line that names the template."""

BLIND: Final = {
    "class by attr": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "class by map": "{{ ['']|map(attribute='__class__')|list }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
}
"""What reaches for Python's objects and sees nothing."""

HARMLESS: Final = {
    "large numbers in texts": "{{ messages[0].content ~ ' {123456789} %123456789' }}",
    "many messages": "{% for m in messages * 500 %}{{ m.content }}{% endfor %}",
    "trim": "{{ messages[0].content|trim }}{{ messages[0].content.strip() }}",
}
"""What looks like some of them, and is rendered."""
