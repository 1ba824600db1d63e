from stages.report.page.pipeline_summary import _rl_validation, _validation


def test_validation_is_shown_where_there_was_some():
    span = {"rows": 9, "best_step": 40, "best": 0.5, "last": 0.75}
    assert _validation(None) == {}
    assert _validation(span) == {"validation loss": 0.5, "best step": 40}
    at = {"ndcg@5": 0.43219, "valid": 0.975}
    ranking = {"slates": 256, "decides": True, "best": at, "last": {"ndcg@5": 0.1, "valid": 1.0}}
    assert _validation(span | {"ranking": ranking}) == {
        "validation loss": 0.5, "best step": 40, "validation NDCG@5 of 256 slates": "0.4322", "valid answers there": "97.5 %",
    }  # fmt: skip


def test_validation_of_rl():
    assert _rl_validation(None) == {}
    shown = _rl_validation({"slates": 128, "best_step": 6, "start": 0.1, "best": 0.25, "last": 0.2})
    assert shown == {"validation reward of 128 slates, before to best": "0.1000 to 0.2500 (step 6)"}
