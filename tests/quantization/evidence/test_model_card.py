"""The card opens with the import, inherits the licence, and prints no number that results.json does
not hold.
"""

from __future__ import annotations

import json
import math
import re

import pytest
from huggingface_hub import ModelCard
from tests.quantization.evidence.sample import results

from featherweight.quantization.evidence import card

NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def numbers_of(value):
    """Every number in results.json, those inside of texts too."""
    if isinstance(value, dict):
        return [n for pair in value.items() for part in pair for n in numbers_of(part)]
    if isinstance(value, list):
        return [n for item in value for n in numbers_of(item)]
    if isinstance(value, str):
        return [float(n) for n in re.findall(r"\d+(?:\.\d+)?", value)]
    return [] if value is None else [float(value)]


def shown(text, known):
    """Whether the printed `text` is one of `known` rounded to the decimals shown, as such, in
    percent, KB, MB or GB.
    """
    value = float(text.replace(",", ""))
    places = len(text.partition(".")[2])
    tolerance = 0.5000001 * 10**-places
    return any(
        math.isclose(n * scale, value, abs_tol=tolerance)
        for n in known
        for scale in (1, 100, 1e-3, 1e-6, 1e-9)
    )


def test_opens_with_the_import_that_it_needs():
    body = card(results()).split("---", 2)[2].strip()
    assert body.splitlines()[:2] == ["```python", body.splitlines()[1]]
    assert body.splitlines()[1].startswith("import featherweight.interchange.hf")


def test_the_hub_reads_its_data(sample):
    data = ModelCard(card(sample)).data
    assert data.license == "apache-2.0"
    assert (
        data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
        and data.base_model_relation == "quantized"
    )
    assert data.library_name == "transformers" and "featherweight" in data.tags
    values = {r.metric_type: r.metric_value for r in data.eval_results}
    assert values["perplexity"] == pytest.approx(21.93127, rel=1e-5)
    assert values["kl_divergence"] == pytest.approx(sample["quality"]["kl"]["mean"], rel=1e-5)
    assert values["top_1_agreement"] == pytest.approx(0.86133)


@pytest.mark.parametrize("blocks", [1, 30])
def test_no_number_that_is_not_in_results(blocks):
    sample = json.loads(json.dumps(results(blocks)))
    known = numbers_of(
        {key: value for key, value in sample.items() if key not in ("layers", "samples")}
    )
    for text in NUMBER.findall(card(sample)):
        assert shown(text, known), text


def test_a_changed_number_changes_the_card(sample):
    """The check above would pass on a card without numbers; these must be there."""
    text = card(sample).replace("\u00a0", " ")
    for figure in (
        "68.7 MB",
        "269.1 MB",
        "3.000",
        "3.025",
        "4.084",
        "0.0896 to 0.0993",
        "19.87",
        "21.93",
        "86.1 %",
    ):
        assert figure in text, figure
    assert sample["calibration"]["tokens_sha256"] in text and "tables: Int(bits=8)" in text
    assert "the output side hurt held-out text" in text


def test_both_sizes_of_a_converted_source_are_there(sample):
    sample["model"] |= {
        "published_dtype": "bfloat16",
        "published_bytes": 269_030_016,
        "published_bits": 16.0,
        "source_file_bytes": 538_090_432,
        "source_bits": 32.0,
    }
    text = card(sample).replace("\u00a0", " ")
    assert "| as published, bfloat16 | source file | light |" in text
    assert "| 269.0 MB | 538.1 MB | 68.7 MB |" in text and "| 16.0 | 32.0 | 4.084 |" in text
    assert "Not measured here: tasks, speed, " in text
    known = numbers_of(
        {key: value for key, value in sample.items() if key not in ("layers", "samples")}
    )
    for number in NUMBER.findall(card(sample)):
        assert shown(number, known), number


def test_only_what_was_measured():
    bare = results(1)
    for key in ("quality", "calibration", "recipe", "warnings"):
        del bare[key]
    del bare["model"]["licence"], bare["model"]["base_model"]
    text = card(bare)
    assert "What it cost" not in text and "Calibration" not in text and "Recipe" not in text
    data = ModelCard(text).data
    assert data.license is None and data.base_model is None and data.eval_results is None
    assert "The licence is the original's." in text
    ModelCard(card({}))


def test_names_do_nothing_in_markdown(sample):
    evil = "a|b`c` <script>x</script> [link](http://e) \n# head\n---\nlicense: mit\ud800"
    sample["model"]["name"] = sample["quality"]["text"]["name"] = evil
    sample["calibration"]["sources"][0]["name"] = evil
    sample["warnings"] = [evil]
    sample["recipe"]["model"] = "```\n# out of the fence"
    text = card(sample)
    data = ModelCard(text)
    assert data.data.license == "apache-2.0"
    body = data.text
    assert "<script>" not in re.sub(r"````yaml.*?````", "", body, flags=re.DOTALL).replace(
        "\\<script\\>", ""
    )
    assert "\n# head" not in body and "\n````yaml" in body
