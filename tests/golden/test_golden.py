import pytest

from tests.golden import cases, kept, texts


@pytest.mark.parametrize(("kind", "case", "render"), cases(), ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_rendered_is_what_is_kept(kind, case, render):
    assert texts(render()) == kept(kind, case), "if this is meant: python -m tests.golden, and read the difference"
