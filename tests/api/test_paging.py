"""Pages of lists: the setting ``default.page.size`` holds for every list, and says how large a page may be."""

from __future__ import annotations

import pytest

from controlplane.api.command import REGISTRY
from controlplane.errors import BadParameter


def lists():
    return sorted(
        name
        for name, command in REGISTRY.items()
        if "pagesize" in command.parameters()
        and not any(parameter.declared.required for parameter in command.parameters().values())
        and not name.startswith("test")
    )


def items(answer):
    return next((value for value in answer.values() if isinstance(value, list)), [])


@pytest.fixture
def small(cloud):
    cloud("updateConfiguration", name="default.page.size", value="2")
    return cloud


def test_every_list_answers_with_as_many_items_as_the_setting_says(small):
    full = 0
    assert len(lists()) > 60
    for name in lists():
        answer = small(name)
        assert len(items(answer)) <= 2, name
        if answer.get("count", 0) > 2:
            assert len(items(answer)) == 2, name
            full += 1
    assert full >= 6  # offerings, templates' operating systems, roles, settings …


def test_every_list_refuses_a_page_larger_than_the_setting(small):
    for name in lists():
        with pytest.raises(BadParameter) as caught:
            small(name, page=1, pagesize=3)
        assert "pagesize value=3" in caught.value.text, name
        assert "max allowed page size value: 2" in caught.value.text, name
        assert len(items(small(name, page=1, pagesize=2))) <= 2, name


def test_a_page_size_of_minus_one_is_all_whatever_the_setting_says(small):
    assert small("listOsTypes")["count"] == len(items(small("listOsTypes", pagesize=-1)))
    with pytest.raises(BadParameter, match="leave page out"):
        small("listOsTypes", page=1, pagesize=-1)


def test_unlimited_is_what_minus_one_makes_the_setting(cloud):
    cloud("updateConfiguration", name="default.page.size", value="3")
    assert len(items(cloud("listConfigurations"))) == 3
    cloud("updateConfiguration", name="default.page.size", value="-1")
    count = cloud("listConfigurations")["count"]
    assert len(items(cloud("listConfigurations"))) == count > 3
    assert len(items(cloud("listConfigurations", page=1, pagesize=100000))) == count


@pytest.mark.parametrize("sent", [{"page": 0, "pagesize": 1}, {"page": 1, "pagesize": 0}, {"page": 1, "pagesize": -2}])
def test_a_page_that_there_cannot_be_is_refused(cloud, sent):
    with pytest.raises(BadParameter, match="it must be at least 1"):
        cloud("listOsTypes", **sent)


def test_the_setting_is_a_number_from_minus_one(cloud):
    for value in ("-2", "many"):
        with pytest.raises(BadParameter):
            cloud("updateConfiguration", name="default.page.size", value=value)
