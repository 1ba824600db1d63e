import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stages.quantize.awq import CLIPS, fold, folds_of, output_error, search_range, search_scale, tied_to_source
from stages.quantize.quantlrm import BaseWeights, UpdateRange, importance
from stages.quantize.rounding import codes_of, dequantize_weight, quantize_weight
from stages.shared.core.errors import StageError
from stages.shared.lm.models import load_model
from tests.stages.quantize.test_gptq import correlated_gram
from tests.support.tiny_models import random_prompts, tiny_folder


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_search_is_never_worse_than_rounding(seed):
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(seed))
    gram = correlated_gram(32, 80, seed)
    scale = search_scale([weight], gram.diagonal().sqrt(), gram, 3, 16)
    searched = dequantize_weight(*quantize_weight(weight * scale, 3, 16)) / scale - weight
    nearest = dequantize_weight(*quantize_weight(weight, 3, 16)) - weight
    assert output_error(searched, gram) <= output_error(nearest, gram) * (1 + 1e-4)


def test_one_loud_input_is_protected():
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(3))
    gram = torch.eye(32)
    gram[4, 4] = 1e4
    scale = search_scale([weight], gram.diagonal().sqrt(), gram, 3, 32)
    assert scale[4] == scale.max() > 1.2 * scale.median()


def test_error_of_outputs_is_that_of_the_inputs_themselves():
    difference, inputs = torch.randn(3, 8), torch.randn(20, 8)
    assert output_error(difference, inputs.T @ inputs) == pytest.approx(float((inputs @ difference.T).square().sum()), rel=1e-4)


def test_each_group_gets_the_range_with_the_least_error():
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(1)) ** 3
    gram = correlated_gram(16, 50, 3)
    found = search_range(weight, gram, 3, 8)
    for group in range(2):
        columns = slice(8 * group, 8 * group + 8)
        for row in range(4):
            part = weight[row : row + 1, columns]
            full = part.abs().amax() / 3.5
            errors = []
            for clip in CLIPS:
                scale = (full * clip).view(1, 1)
                errors.append(output_error(codes_of(part, scale, 3) * scale - part, gram[columns, columns]))
            assert found[row, group] == pytest.approx(float(full) * CLIPS[int(np.argmin(errors))], rel=1e-5)


def test_folding_changes_nothing_but_the_weights(tmp_path):
    """In every place of a block with grouped-query attention."""
    model = load_model(tiny_folder(tmp_path / "model"))
    ids = torch.tensor([prompt[:20] for prompt in random_prompts(4, 300)])
    with torch.no_grad():
        before = model(ids).logits
        for block in model.model.layers:
            for one in folds_of(block, "llama"):
                layers = [block.get_submodule(name) for name in one.layers]
                scale = torch.rand(layers[0].in_features) + 0.5
                fold(tied_to_source(scale, one.source, model.config.head_dim), one.source, layers, model.config.head_dim)
        assert torch.allclose(model(ids).logits, before, rtol=1e-3, atol=1e-3)


def test_a_family_of_other_blocks_is_refused():
    with pytest.raises(StageError, match="choose gptq"):
        folds_of(nn.Module(), "gpt2")


def test_importance_by_hand():
    """Least 1, median 2, largest 4; the first column has a weight that did not move, the second the median alone."""
    update = torch.tensor([[0.0, 2.0, 1.0], [4.0, 2.0, 3.0]])
    spread = UpdateRange.of_updates([update])
    assert (spread.least, spread.median, spread.largest) == (1.0, 2.0, 4.0)
    found = importance(update, spread)
    assert found.tolist() == pytest.approx([(1 + 10) / 2 * 2, 1.0, (10 + (1 + 9 * 0.25)) / 2])


def test_updates_are_read_from_the_base(tmp_path):
    folder = tiny_folder(tmp_path / "base")
    model = load_model(folder)
    layer = model.model.layers[0].mlp.up_proj
    base = BaseWeights(folder)
    assert base.update("model.layers.0.mlp.up_proj", layer).count_nonzero() == 0
    with pytest.raises(StageError, match="same weights as the model itself"):
        UpdateRange.of(base, {"model.layers.0.mlp.up_proj": layer})
    layer.weight.data[2, 3] += 0.5
    assert base.update("model.layers.0.mlp.up_proj", layer).nonzero().tolist() == [[2, 3]]
    with pytest.raises(StageError, match=r"has no model\.layers\.7"):
        base.update("model.layers.7.mlp.up_proj", layer)
    with pytest.raises(StageError, match="here"):
        base.update("model.layers.0.mlp.down_proj", layer)
    with pytest.raises(StageError, match=r"no \*\.safetensors"):
        BaseWeights(tmp_path)
