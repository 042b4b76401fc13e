from __future__ import annotations

import json

import pytest

from flames.errors import FlamesError
from flames.federation.network.guard import Refusal
from flames.federation.network.trained_store import (
    STORE_FILE,
    check_new_to,
    check_store,
    note_store,
)


def test_what_a_site_first_trained_on_is_noted_once(site_stores, tmp_path):
    check_store(tmp_path, site_stores["us-a"])  # nothing is noted yet
    note_store(tmp_path, site_stores["us-a"])
    note_store(tmp_path, site_stores["us-b"])
    check_store(tmp_path, site_stores["us-a"])
    with pytest.raises(Refusal, match="its store changed since the site first trained"):
        check_store(tmp_path, site_stores["us-b"])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"store": "", "prepared": "", "splits": 3}'])
def test_a_note_that_cannot_be_read_is_not_taken_for_none(site_stores, tmp_path, content):
    (tmp_path / STORE_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(FlamesError, match=f"{STORE_FILE} does not say") as error:
        check_store(tmp_path, site_stores["us-a"])
    assert not isinstance(error.value, Refusal)


def test_cases_that_left_the_split_count_as_moved(site_stores, tmp_path):
    store = site_stores["us-a"]
    note_store(tmp_path, store)
    path = tmp_path / STORE_FILE
    known = json.loads(path.read_text(encoding="utf-8"))
    known["splits"]["test"] = []
    path.write_text(json.dumps(known), encoding="utf-8")
    moved = len(store.splits.test)
    with pytest.raises(Refusal, match=f"split anew since .*: {moved} of its cases"):
        check_store(tmp_path, store)


def test_a_site_refuses_to_begin_with_a_run_that_trained_on_its_test_cases(site_stores, tmp_path):
    store = site_stores["us-a"]
    check_new_to(tmp_path, store)  # it took no part
    note_store(tmp_path, store)
    check_new_to(tmp_path, store)
    path = tmp_path / STORE_FILE
    known = json.loads(path.read_text(encoding="utf-8"))
    known["splits"]["train"] += known["splits"]["test"]
    path.write_text(json.dumps(known), encoding="utf-8")
    tests = len(store.splits.test)
    with pytest.raises(Refusal, match=f"{tests} test cases were for training in {tmp_path.name}"):
        check_new_to(tmp_path, store)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(FlamesError, match="does not say what the store held") as error:
        check_new_to(tmp_path, store)
    assert not isinstance(error.value, Refusal)
