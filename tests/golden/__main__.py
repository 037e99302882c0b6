from tests.golden import rewrite

rewrite()
