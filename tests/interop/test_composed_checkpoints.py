"""Published Combiner checkpoints: read without executing anything, and the same queries come out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import xretrieve as xr
from tests.golden.test_image_text import arrays, part
from xretrieve.cli.main import main
from xretrieve.errors import XRetrieveError
from xretrieve.heads.combiner import CombinerNetwork
from xretrieve.interop import import_checkpoint


@pytest.fixture
def network():
    torch.manual_seed(0)
    return CombinerNetwork(6, 10, 12).eval()


def write(path, state, key="Combiner"):
    torch.save({"epoch": 7, key: state}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_imported_combiner_composes_as_the_published_one(tmp_path, network, prefix):
    state = {prefix + key: value for key, value in network.state_dict().items()}
    out = tmp_path / "run"
    import_checkpoint(write(tmp_path / "combiner.pt", state), "combiner", out)
    matcher = xr.load(out)
    image, text = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    query = matcher.head.combine_image_text(matcher.encode_images(image), matcher.encode_texts(list(text))).pooled
    with torch.no_grad():
        wanted, _ = network(torch.from_numpy(image), torch.from_numpy(text))
    torch.testing.assert_close(query, wanted)
    assert (out / "import.json").is_file() and '"epoch": 7' in (out / "import.json").read_text()


def test_the_command_line_imports_it_and_a_plain_state_dict_too(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "plain.pt")
    assert main(["import", str(tmp_path / "plain.pt"), "--family", "combiner", "--out", str(tmp_path / "run")]) == 0
    assert xr.load(tmp_path / "run").head.name == "combiner"


def test_golden_queries_come_from_an_imported_file(tmp_path, golden):
    stored = arrays(golden / "composed_combiner.npz")
    state = {key: torch.from_numpy(value) for key, value in part(stored, "state/").items()}
    matcher = import_checkpoint(write(tmp_path / "c.pt", state), "combiner", tmp_path / "run")
    given = part(stored, "in/")
    query = matcher.head.combine_image_text(matcher.encode_images(given["image"]), matcher.encode_texts(given["text"]))
    np.testing.assert_allclose(query.pooled.detach().numpy(), stored["out/query"], rtol=0, atol=1e-5)


def test_files_that_are_something_else_are_refused_and_leave_nothing(tmp_path, network):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    torch.save({"Combiner": Evil()}, tmp_path / "evil.pt")
    missing = dict(network.state_dict())
    missing.pop("output_layer.bias")
    cases = [
        (tmp_path / "evil.pt", {}, "was not read"),
        (write(tmp_path / "clip.pt", {"x": torch.ones(1)}, "CLIP"), {}, "expected a dict with 'Combiner'"),
        (write(tmp_path / "missing.pt", missing), {}, "output_layer.bias"),
        (write(tmp_path / "tirg.pt", {"res_info_composer.5.weight": torch.ones(2, 4)}), {}, "looks like tirg"),
        (write(tmp_path / "good.pt", network.state_dict()), {"vocab": tmp_path / "v.json"}, "leave out vocab"),
        (tmp_path / "good.pt", {"weights": tmp_path / "w.pt"}, "name it too"),
    ]
    for path, more, said in cases:
        with pytest.raises(XRetrieveError, match=said):
            import_checkpoint(path, "combiner", tmp_path / "run", **more)
    assert not (tmp_path / "touched").exists() and not (tmp_path / "run").exists()
    with pytest.raises(XRetrieveError, match="needs vocab"):
        import_checkpoint(tmp_path / "good.pt", "scan", tmp_path / "run")


def test_raw_pictures_and_texts_are_refused_by_a_matcher_of_features(tmp_path, network):
    matcher = import_checkpoint(write(tmp_path / "c.pt", network.state_dict()), "combiner", tmp_path / "run")
    with pytest.raises(XRetrieveError, match="expected 6 numbers"):
        matcher.encode_texts(["in blue"])
    with pytest.raises(XRetrieveError, match="shape"):
        matcher.encode_images([np.zeros(5, np.float32)])
