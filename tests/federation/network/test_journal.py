from __future__ import annotations

from flames.federation.network.journal import Journal


def test_following_reads_what_is_new_and_whole(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    journal.write("old", "before")
    news = journal.follow()
    assert next(news) == []
    journal.write("one", "first")
    with journal.path.open("ab") as file:
        file.write(b'{"event": "half"')
        file.flush()
        assert [event["event"] for event in next(news)] == ["one"]
        assert next(news) == []
        file.write(b', "text": ""}\n')
    journal.write("two", "second")
    assert [event["event"] for event in next(news)] == ["half", "two"]
    assert len(journal.read()) == 4
    assert [event["event"] for event in journal.read(2)] == ["half", "two"]


def test_following_a_journal_that_is_not_there_yet(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    news = journal.follow()
    assert next(news) == []
    journal.write("one", "first")
    assert [event["event"] for event in next(news)] == ["one"]
