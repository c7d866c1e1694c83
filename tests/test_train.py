"""The recipe at a toy size: every step runs, continues after a kill, and its result speaks."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mars5 import Mars5TTS
from mars5.ar.model import CodecLM
from mars5.codec import MelCodec, MelCodecDims
from mars5.conversion.transposer import Transposer, TransposerDims
from mars5.errors import TrainError
from mars5.eval.lists import read_list
from mars5.nar.model import ResidualTransformer
from mars5.styles import StyleBank
from mars5.train import (
    corpus,
    delivery,
    export,
    loop,
    pieces,
    recipe,
    teachers,
)
from mars5.train.__main__ import main
from mars5.train.bpe import train_speech, train_text
from mars5.train.codec import fit_finer, kmeans
from mars5.train.corpus import make_shard, read_shard
from mars5.train.loop import Run, begin, pace
from mars5.train.numbers import cardinal, numeric_sentence
from mars5.train.public_texts import read_fortunes, read_wordnet
from mars5.train.recipe import SIZES, Size, Workshop
from mars5.train.sentences import SentenceSource, normalise
from mars5.train.teachers import CASTS, Speaker, kokoro_phonemes, speak
from mars5.train.tokens import read_examples, text_progress
from mars5.train.transfer import load_weights
from mars5.vocoder import VocoderDims

CODEC = MelCodecDims(stack=2, rank=8, n_mels=12, n_fft=512)
TOY_AR = {"dim": 32, "n_heads": 2, "n_layers": 3, "ff_dim": 48, "n_spk_layers": 1, "spk_ff_dim": 64}
TOY_NAR = {"dim": 32, "n_heads": 2, "n_enc_layers": 1, "n_dec_layers": 1, "n_spk_layers": 1,
           "ff_dim": 48, "t_emb_dim": 16}  # fmt: skip
VOCODER = VocoderDims(channels=12, stack=2, dim=16, ff_dim=24, n_layers=1, n_bandwidths=0)


def fake_speech(
    text: str, speaker: Speaker, pace: float = 1.0
) -> tuple[np.ndarray, list[tuple[str, float]]]:
    """A tone for each letter, with phone times: a teacher that needs no installation."""
    letters = [c for c in text.lower() if c.isalpha()][:24] or ["a"]
    seconds = 0.07 / pace
    t = np.arange(int(seconds * 24_000)) / 24_000
    base = (speaker.pitch or 130) * speaker.size
    tones = [np.sin(2 * np.pi * (base + 40 * (ord(c) % 26)) * t) for c in letters]
    silence = np.zeros(1440)
    wave = 0.3 * np.concatenate([silence, *tones, silence])
    phones = [("pau", 0.06)] + [(c, 0.06 + (i + 1) * seconds) for i, c in enumerate(letters)]
    phones.append(("pau", phones[-1][1] + 0.06))
    return (wave * 32767).astype(np.int16), phones


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy sizes and a fake teacher."""
    monkeypatch.setattr(corpus, "speak", fake_speech)
    monkeypatch.setattr(delivery, "speak", fake_speech)
    monkeypatch.setattr(export, "speak", fake_speech)
    monkeypatch.setattr(corpus, "SHARD_UTTERANCES", {"plain": 40, "pseudo": 20, "crowd": 20})
    monkeypatch.setattr(recipe, "CODEC", CODEC)
    monkeypatch.setattr(recipe, "VOCODER", VOCODER)
    monkeypatch.setattr(recipe, "TEXT_MERGES", 20)
    monkeypatch.setattr(loop, "NOTE_SECONDS", 0.0)  # every step notes, and so evaluates
    for name, loaders in (("small", 0), ("full", 2)):
        monkeypatch.setitem(recipe.SIZES, name, Size(TOY_AR, TOY_NAR, 400, 200, loaders))


def test_recipe_runs_resumes_and_speaks(toy: None, tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    shop.corpus("plain", shards=2, workers=1)
    first = (tmp_path / "corpus" / "plain-00000.safetensors").stat().st_mtime_ns
    shop.corpus("plain", shards=3, workers=2)  # continues: what is there stays
    assert (tmp_path / "corpus" / "plain-00000.safetensors").stat().st_mtime_ns == first
    shop.corpus("pseudo", shards=2, workers=1)
    shop.tokens()
    assert len(read_examples(sorted((tmp_path / "tokens").iterdir()))) == 160
    shop.delivery(workers=2)
    assert len(list((tmp_path / "delivered").iterdir())) == 2  # the pseudo-speakers' shards
    for name in ("vocoder", "ar", "nar"):
        _train_twice(shop, name)
    clocks = [torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("vocoder", "judges")]
    assert clocks[0]["seconds"] == clocks[1]["seconds"] > 0
    assert clocks[0]["step"] == clocks[1]["step"]
    system = Mars5TTS.from_pretrained(export.export(shop, tmp_path / "out"), device="cpu")
    assert system.default_voice is not None
    speech = system.generate("hello there", seed=1)
    assert speech.audio.isfinite().all()
    assert system.config.facts["training"]["ar"]["steps"] > 0


def _train_twice(shop: Workshop, name: str) -> None:
    """A run that was stopped goes on with its steps, its clock and its weights."""
    step = getattr(shop, name)
    step(0.01)
    path = shop.folder / f"{name}.pt"
    before = torch.load(path, weights_only=True)
    assert before["step"] > 0
    step(before["seconds"] / 60 + 0.01)
    after = torch.load(path, weights_only=True)
    assert after["step"] > before["step"]
    assert after["seen"] > before["seen"]
    assert after["seconds"] > before["seconds"]
    pairs = zip(before["model"].values(), after["model"].values(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


TRANSPOSER = TransposerDims(12, dim=16, ff_dim=24, n_layers=1)


@pytest.fixture
def exported(toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of all steps, untrained but for its transposer, and its corpus in `work`."""
    monkeypatch.setattr(recipe, "TRANSPOSER", TRANSPOSER)
    monkeypatch.setattr(export, "TRANSPOSER", TRANSPOSER)
    monkeypatch.setitem(corpus.SHARD_UTTERANCES, "own", 20)
    shop = Workshop(tmp_path / "work")
    for cast in ("own", "pseudo", "plain"):
        shop.corpus(cast, shards=2, workers=1)
    shop.tokens()
    models = {"ar": shop.new_ar(), "nar": shop.new_nar(), "vocoder": shop.new_vocoder()}
    for name, model in {**models, "transposer": Transposer(TRANSPOSER)}.items():
        run = Run(shop.folder, name, model, 1.0, 1.0)
        run.step = 7 if name == "transposer" else 0
        run.save()
    return export.export(shop, tmp_path / "out")


def test_a_checkpoint_is_the_state_that_training_goes_on_from(
    exported: Path, tmp_path: Path
) -> None:
    work = tmp_path / "next"
    adopt = ["adopt", "--work", str(work), "--checkpoint", str(exported)]
    assert main(adopt) == 0
    assert main(adopt) == 1  # what is there is kept
    for name in ("ar", "nar", "vocoder", "transposer"):
        before, after = (load_weights(folder, name) for folder in (tmp_path / "work", work))
        before.pop("table", None)  # is computed from the codec's books
        for key, weight in before.items():
            assert torch.equal(weight.half().float(), after[key]), (name, key)
    again = tmp_path / "again"
    assert main(["export", "--work", str(work), "--to", str(again)]) == 0
    for path in exported.iterdir():
        one, two = load_file(path), load_file(again / path.name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), path.name
    config = Mars5TTS.from_pretrained(again, device="cpu").config
    assert config.facts["training"]["transposer"]["steps"] == 7
    assert config.facts["version"] == export.VERSION
    assert config.defaults == export.DEFAULTS


@pytest.mark.parametrize("name", ["tokens", "judges.pt", "codec.safetensors"])
def test_nothing_is_adopted_where_something_is(exported: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "next" / name).mkdir(parents=True)
    with pytest.raises(TrainError, match=f"has {name} already"):
        Workshop(tmp_path / "next").adopt(exported)


@pytest.mark.parametrize("other", [{"dim": 64}, {"n_heads": 1}])
def test_other_sizes_are_not_adopted(
    exported: Path, tmp_path: Path, other: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipe.SIZES, "small", Size({**TOY_AR, **other}, TOY_NAR, 400, 200, 0))
    (tmp_path / "next").mkdir()
    with pytest.raises(TrainError, match="not of this recipe: its ar is"):
        Workshop(tmp_path / "next").adopt(exported)
    assert not list((tmp_path / "next").iterdir())


def test_a_run_that_begins_forgets_what_was_there(tmp_path: Path) -> None:
    old, new = (torch.nn.Linear(2, 2) for _ in range(2))
    for model in (old, new):
        begin(tmp_path, "nar", model).save()
        assert torch.equal(load_weights(tmp_path, "nar")["weight"], model.weight)


def test_weights_are_averaged_with_those_before(tmp_path: Path) -> None:
    for folder, value in (("v1", 1.0), ("v2", 3.0)):
        (tmp_path / folder).mkdir()
        state = {"model": {"w": torch.full((2,), value)}, "step": 7}
        torch.save(state, tmp_path / folder / "nar.pt")
    command = f"average --work {tmp_path}/v2 --source {tmp_path}/v1 --of nar --share"
    assert main([*command.split(), "0.75"]) == 0
    found = torch.load(tmp_path / "v2" / "nar.pt", weights_only=True)
    assert torch.equal(found["model"]["w"], torch.full((2,), 2.5))
    assert found["step"] == 7
    assert main([*command.split(), "1.5"]) == 1


def test_a_lent_machine_trains_both_and_packs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, object, str]] = []
    for name in ("ar", "nar", "pieces"):

        def step(self: Workshop, given: object, name: str = name) -> None:
            asked.append((name, given, str(self.device)))

        monkeypatch.setattr(Workshop, name, step)
    line = f"lent --work {tmp_path} --size full --device cuda --minutes 18 --pieces {tmp_path}/out"
    assert main(line.split()) == 0
    assert asked == [("ar", 9, "cuda"), ("nar", 9, "cuda"), ("pieces", tmp_path / "out", "cuda")]


def test_steps_name_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainError, match=r"python -m mars5\.train corpus"):
        Workshop(tmp_path).codec()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(TrainError, match="apt-get install flite"):
        speak("hello", Speaker("flite", "slt"))


@pytest.mark.skipif(shutil.which("flite") is None, reason="the teacher flite is not installed")
def test_teacher_speaks_with_phone_times() -> None:
    pcm, phones = speak("The ferry is late.", Speaker("flite", "slt"))
    assert pcm.dtype == np.int16
    assert phones[-1][1] == pytest.approx(len(pcm) / 24_000, abs=0.02)
    assert [p for p, _ in phones if p != "pau"][:2] == ["dh", "ax"]
    faster, _ = speak("The ferry is late.", Speaker("flite", "slt"), pace=1.25)
    assert len(faster) == pytest.approx(len(pcm) / 1.25, rel=0.05)
    smaller, _ = speak("The ferry is late.", Speaker("flite", "slt", size=1.2))
    assert len(smaller) == pytest.approx(len(pcm), rel=0.05)  # size does not move the pace


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_kokoro_reads_phonemes_of_its_own_alphabet() -> None:
    assert kokoro_phonemes("The train, please.") == "ðə tɹˈAn, plˈiːz."  # noqa: RUF001


def test_casts_have_many_speakers_that_repeat() -> None:
    rng = random.Random(1)
    drawn = {name: [str(cast(rng)) for _ in range(2000)] for name, cast in CASTS.items()}
    assert len(set(drawn["pseudo"])) > 350
    assert 40 < len(set(drawn["kokoro"])) <= 65
    assert drawn["plain"].count("flite:rms@1.00") > 400


def test_a_tone_is_one_for_each_speaker_and_as_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, 24_000).astype(np.float32)
    phones = [("pau", 0.1), ("a", 0.9), ("pau", 1.0)]
    monkeypatch.setitem(teachers.TEACHERS, "flite", lambda *_: (sound, 24_000, phones))
    plain, one, again, other = (
        speak("ah", Speaker("flite", "rms", tone=tone))[0] for tone in (None, 1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert len(plain) == len(one) == len(other)
    assert abs(int(np.abs(one).max()) - int(np.abs(plain).max())) <= 1
    assert not np.array_equal(one, other)
    assert str(Speaker("flite", "rms", tone=7)).endswith(",tone7")


def test_numbers_are_written_out() -> None:
    assert cardinal(0) == "zero"
    assert cardinal(45) == "forty-five"
    assert cardinal(653) == "six hundred and fifty-three"
    assert cardinal(7_012) == "seven thousand and twelve"
    rng = random.Random(2)
    sentences = [numeric_sentence(rng) for _ in range(300)]
    assert not any(c.isdigit() or c in "{}" for s in sentences for c in s)


def test_weights_travel_in_pieces(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 20_000)
    shop = Workshop(tmp_path / "there", size="full")  # batches prepared by other processes
    shop.corpus("plain", shards=2, workers=1)
    shop.tokens()
    shop.ar(0.01)
    shop.pieces(tmp_path / "pieces")
    here = Workshop(tmp_path / "here", size="full")
    for name in ("tokens", "codec.safetensors", "texttok.model"):
        source = shop.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, here.folder / name)
    here.join(tmp_path / "pieces")
    there, state = (torch.load(w.folder / "ar.pt", weights_only=True) for w in (shop, here))
    assert [state[k] for k in ("step", "seen", "seconds")] == [
        there[k] for k in ("step", "seen", "seconds")
    ]
    for name, tensor in there["model"].items():
        assert torch.equal(state["model"][name], tensor.half().float())
    assert not (here.folder / "nar.pt").exists()  # there were no pieces of it
    min((tmp_path / "pieces").iterdir()).unlink()
    with pytest.raises(TrainError, match="pieces are needed"):
        here.join(tmp_path / "pieces")


def test_full_size_fits_the_package() -> None:
    """At most 50M parameters and 64 MB in half precision, codec and vocoder (4M) included."""
    text, speech = train_text(["ab cd"], 0), train_speech([], 0)
    full = SIZES["full"]
    with torch.device("meta"):
        models = CodecLM(full.ar_dims(text, speech)), ResidualTransformer(full.nar_dims(text))
    count = sum(p.numel() for model in models for p in model.parameters())
    assert 20e6 < count < 64e6 / 2 - 4e6


def test_transfer_to_another_codec_keeps_what_was_learned(toy: None, tmp_path: Path) -> None:
    """To the same codec under a permutation of its codes, the transferred model is the model."""
    shop = Workshop(tmp_path / "old")
    shop.corpus("plain", shards=2, workers=1)
    shop.corpus("pseudo", shards=2, workers=1)
    shop.tokens()
    for name in ("vocoder", "ar", "nar"):
        getattr(shop, name)(0.01)
    other = Workshop(tmp_path / "new")
    for kind in ("corpus", "tokens"):
        shutil.copytree(shop.folder / kind, other.folder / kind)
    shutil.copy(shop.folder / "texttok.model", other.folder)
    state = load_file(shop.folder / "codec.safetensors")
    turned = torch.randperm(1024, generator=torch.Generator().manual_seed(1))
    state["codebooks"] = state["codebooks"][:, turned].contiguous()
    save_file(state, other.folder / "codec.safetensors")
    other.transfer(shop.folder)
    used = torch.cat(
        [e.codes[:, 0] for e in read_examples(sorted((tmp_path / "old" / "tokens").iterdir()))]
    )
    seen = used.unique().long()
    before = load_weights(shop.folder, "ar")["ref_chunked_emb.embs.0.weight"]
    after = load_weights(other.folder, "ar")["ref_chunked_emb.embs.0.weight"]
    place = torch.argsort(turned)
    close = (after[place[seen]] - before[seen]).abs().amax(1) < 1e-3
    assert close.float().mean() > 0.9  # codes rare in the compared shards may be unseen there


def test_shards_depend_on_seed_and_number_only(toy: None, tmp_path: Path) -> None:
    source = SentenceSource()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    a = make_shard(tmp_path / "a", "plain", 3, 7, source)
    make_shard(tmp_path / "b", "pseudo", 2, 7, source)
    b = make_shard(tmp_path / "b", "plain", 3, 7, source)
    assert a.read_bytes() == b.read_bytes()
    (first, audio), *_ = read_shard(a)
    assert len(audio) == first.length
    assert not list(tmp_path.glob("**/*.tmp"))


def test_held_out_sentences_are_never_drawn() -> None:
    rng = random.Random(0)
    unbound = SentenceSource()
    free = {unbound.draw(rng).written for _ in range(300)}
    source = SentenceSource(frozenset(free))
    rng = random.Random(0)
    assert not {normalise(source.draw(rng).written) for _ in range(300)} & {
        normalise(s) for s in free
    }


def test_evaluation_sentences_are_in_no_public_text() -> None:
    unseen = {normalise(s) for s in read_list("everyday")}
    assert len(unseen) == 100
    assert not unseen & {normalise(s) for s in read_fortunes() + read_wordnet()}


def test_examples_of_wordnet_become_sentences(tmp_path: Path) -> None:
    line = '00001 00 n 01 cry 0 | a sound; "the baby cried for its mother"; "why not?"; "a cry"; '
    (tmp_path / "data.noun").write_text(line + '"Is this the 2nd one?"; "Is it his own cry?"\n')
    assert read_wordnet(tmp_path) == ["Is it his own cry?", "The baby cried for its mother."]
    assert read_wordnet(tmp_path / "nothing") == []


def test_text_progress_follows_pauses() -> None:
    phones = [("pau", 0.1), ("a", 0.2), ("b", 0.3), ("pau", 0.5), ("c", 0.9), ("pau", 1.0)]
    text = "ab, c"
    found = text_progress(text, phones, torch.tensor([0.0, 0.1, 0.3, 0.45, 0.9, 2.0])) * len(text)
    assert torch.allclose(found, torch.tensor([0.0, 0.0, 2.0, 2.0, 5.0, 5.0]), atol=1e-5)


def test_kmeans_finds_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = truth.repeat(50, 1) + 0.1 * torch.randn(150, 2, generator=generator)
    centres = kmeans(points, 12, 20, generator)  # enough to start in every cluster
    assert torch.cdist(points, centres).min(1).values.max() < 0.5


def test_finer_books_learn_what_is_left_of_other_coarse_codes() -> None:
    generator = torch.Generator().manual_seed(1)
    codec = MelCodec(CODEC)
    codec.codebooks.copy_(torch.randn(codec.codebooks.shape, generator=generator) / 4)
    first, second = codec.codebooks[:2].clone()
    features = torch.randn(1, 4000, CODEC.rank, generator=generator)
    coarse = torch.randint(1024, (1, 4000), generator=generator)

    def left() -> float:
        codes = codec.quantise(features, coarse)[0]
        found = sum(book[codes[:, q]] for q, book in enumerate(codec.codebooks))
        return (features[0] - found).square().mean().item()

    before = left()
    fit_finer(codec, [(features, coarse)], 4, generator)
    assert left() < before / 2
    assert torch.equal(codec.codebooks[0], first)
    assert not torch.equal(codec.codebooks[1], second)


def test_schedule_of_the_learning_rate(tmp_path: Path) -> None:
    assert pace(0.0) == 0.0
    assert pace(0.3) == 1.0
    assert pace(1.0) == 0.0
    assert pace(0.75) == pytest.approx(0.5)
    run = Run(tmp_path, "x", torch.nn.Linear(2, 2), 1.0, 1e-3)
    run.note(loss=0.123456)
    assert json.loads((tmp_path / "x.jsonl").read_text())["loss"] == 0.1235


def test_codec_is_deaf_to_gain(speechlike: np.ndarray) -> None:
    torch.manual_seed(0)
    codec = MelCodec(CODEC)
    for buffer in codec.state_dict().values():
        buffer.normal_()
    wave = torch.from_numpy(speechlike)[None]
    assert torch.equal(codec.encode(wave), codec.encode(0.3 * wave))
    assert codec.encode(wave).shape == (1, -(-wave.shape[1] // 640), 8)


def test_journal_holds_means_of_the_steps_since_the_last_line(tmp_path: Path) -> None:
    run = Run(tmp_path, "x", torch.nn.Linear(2, 2), 1.0, 1e-3)
    assert not run.tally(loss=1.0)
    run.seconds += 61
    assert run.tally(loss=3.0)
    run.note(held_out=5.0)
    assert not run.tally(loss=7.0)
    run.note()
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == [2.0, 7.0]
    assert lines[0]["held_out"] == 5.0
    assert "held_out" not in lines[1]


def test_the_style_bank_is_recorded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mars5.train.styles.speak", fake_speech)
    assert main(["styles", "--to", str(tmp_path / "bank")]) == 0
    bank = StyleBank(tmp_path / "bank").styles
    assert [style.name for style in bank] == [style.name for style in StyleBank.shipped().styles]
    assert all(style.path.is_file() and style.text and style.plain for style in bank)


def test_a_speaker_has_pitch_and_spread_only_if_told() -> None:
    assert str(Speaker("flite", "rms")) == "flite:rms@1.00"
    assert str(Speaker("flite", "rms", 1.1, 120, 30)) == "flite:rms@1.10,120Hz,30Hz"
