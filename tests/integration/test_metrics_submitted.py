def test_a_purchase_is_counted_once_also_when_its_answer_is_lost(
    emulator: Emulator, buy: Buy, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(submission, "count", lambda name, **tags: sent.append((name, tags)))
    buy("answered")
    emulator.fault(on="submit", kind="drop", times=1, committed=True)
    buy("answered to nobody")
    assert sent == [("submitted", {"conn_id": "nanobanana_default", "model": "nano_banana_2"})] * 2
    assert emulator.ledger()["count"] == 2
