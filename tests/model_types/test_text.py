"""The messages: what is served is what was trained, whatever characters a text is made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

TYPE = "text"

ODD_TEXTS = {
    "punctuation alone": "!!!",
    "one space": " ",
    "one letter": "a",
    "numbers": "4711 0815 12.99 € 30%",
    "capitals": "WHERE IS MY PARCEL??? THE TRACKING SAYS NOTHING!",
    "umlauts": "Die Rückgabe für Müller, Größe 42, Straße 7: ÄÖÜß",
    "accents": "Zoë's café order à la carte, señor; my refund is naïve",
    "emoji": "my parcel 📦 is lost 😡😡 refund🙏please",
    "family of emoji": "👨‍👩‍👧‍👦 return",
    "typographic quotes": "I can\u2019t log in \u2013 it says \u201cinvalid password\u201d\u2026",
    "line breaks": "invoice\r\n\r\n\tis wrong\npayment",
    "no-break space": "credit\u00a0card\u2009charged\u200btwice",
    "other scripts": "Где моя посылка? 私の荷物はどこですか أين طردي parcel",
    "right to left mark": "\u200fparcel\u200e delivery\ufeff",
    "combining": "re\u0301turn re\u0301fund delivery",
    "ligature and full width": "\ufb01ne \uff50\uff41\uff52\uff43\uff45\uff4c delivery",
    "underscore and digits in words": "order_12 parcel2go x9y delivery_date",
    "control characters": "parcel\x00delivery\x07\x1b[31m refund",
    "HTML": "<b>refund</b> &amp; return <script>alert(1)</script>",
    "one long word": "a" * 10_000,
    "as long as may be": ("where is my parcel " * 600)[:10_000],
    "unknown words": "zzgl qwertz lorem ipsum",
}


def test_the_held_out_messages_are_sorted_well_enough_to_be_released(trained):
    metrics = trained.train.evaluate(trained.fitted, trained.test)
    assert all(metrics[name] >= least for name, least in trained.train.AT_LEAST.items())
    assert all(metrics[name] <= most for name, most in trained.train.AT_MOST.items())


def test_the_served_model_agrees_with_scikit_learn_on_the_whole_data_set(trained):
    from training import proof
    from training.table import columns_of

    answers = trained.served.predict(columns_of(trained.table, trained.contract))
    compared = proof.compare(trained.fitted, trained.table, answers, trained.contract, trained.task)
    assert compared.agree, compared.sentence
    assert f"category, probabilities on {len(trained.table)} rows" in compared.sentence


def agree(trained, texts):
    """Whether scikit-learn and what is served say the same of `texts`, in one batch."""
    import pandas as pd

    answer = trained.ask(texts)
    table = pd.DataFrame({"text": texts})
    np.testing.assert_allclose(answer["probabilities"], trained.fitted.predict_proba(table), atol=1e-5)
    assert answer["category"].tolist() == trained.fitted.predict(table).tolist()


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_an_odd_text_is_answered_as_scikit_learn_does(name, trained):
    agree(trained, [ODD_TEXTS[name]])


def test_odd_texts_do_not_disturb_each_other(trained):
    agree(trained, list(ODD_TEXTS.values()))


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=60), min_size=1, max_size=5))
def test_any_text_is_answered_as_scikit_learn_does(trained, texts):
    agree(trained, texts)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_whatever_the_characters_there_is_an_answer(trained, text):
    assert trained.ask([text])["probabilities"].sum() == pytest.approx(1, abs=1e-5)


def test_capitals_make_no_difference(trained):
    lower, upper = trained.ask(["where is my parcel?", "WHERE IS MY PARCEL?"])["probabilities"]
    np.testing.assert_allclose(lower, upper)


def test_a_text_in_which_no_word_is_known_is_not_sorted_with_confidence(trained):
    assert trained.ask(["zzgl qwertz"])["probabilities"].max() < 0.5


def test_every_example_is_answered_as_it_expects_and_was_not_learned_from(trained):
    texts = [example["instance"]["text"] for example in trained.examples]
    assert trained.ask(texts)["category"].tolist() == [example["expect"]["category"] for example in trained.examples]
    assert not set(texts) & set(trained.table["text"])


def test_the_messages_are_distinct_and_as_many_as_their_page_says(trained):
    table = trained.table
    assert list(table.columns) == ["text", "category"]
    assert not table["text"].str.lower().str.replace(r"[^a-z0-9]+", " ", regex=True).duplicated().any()
    assert (counts := table["category"].value_counts()).nunique() == 1
    said = (trained.folder / "MESSAGES.md").read_text()
    assert f"{len(table)} messages" in said
    assert f"{counts.iloc[0]} for each of {len(counts)} categories".replace("6", "six") in said.replace("\n", " ")
    assert all(f"`{category}`" in said for category in counts.index)
