"""The recipe of the embedded checkpoint: sizes, folders, and one function for each step.

All steps work in one folder and skip or continue what is there, so that a killed run is started
again by the same command. `python -m mars5.train STEP` calls them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Module

from mars5.ar.model import CodecLM
from mars5.codec import MelCodec, MelCodecDims, build_mel_codec
from mars5.config import (
    CODEBOOK_SIZE,
    N_CODEBOOKS,
    ARDims,
    ModelConfig,
    NARDims,
    PromptConvention,
)
from mars5.conversion.transposer import Transposer, TransposerDims
from mars5.errors import TrainError
from mars5.eval.lists import read_list
from mars5.files import replacing
from mars5.nar.model import ResidualTransformer
from mars5.tokenizers import SpeechTokenizer, TextTokenizer
from mars5.train import ar, nar, transposer
from mars5.train.batching import Corpus, prefetched
from mars5.train.bpe import train_speech, train_text
from mars5.train.codec import fit_codec, fit_finer
from mars5.train.corpus import make_corpus, read_shard
from mars5.train.delivery import deliver_shard, delivered_shard
from mars5.train.judges import Judges
from mars5.train.loop import Run, begin, initialise, start_from_codebook
from mars5.train.pieces import joined, split
from mars5.train.teachers import as_wave
from mars5.train.tokens import encode_shard, read_examples
from mars5.train.transfer import carry_ar, carry_nar, load_weights, mixtures
from mars5.train.vocoder import Cuts, train_vocoder
from mars5.tts import Mars5TTS
from mars5.vocoder import Vocoder, VocoderDims

CODEC = MelCodecDims(stack=2, rank=96)
VOCODER = VocoderDims(
    channels=CODEC.n_mels, stack=CODEC.stack, dim=256, ff_dim=768, n_layers=6, n_bandwidths=0
)
TRANSPOSER = TransposerDims(CODEC.n_mels)
PROMPT = PromptConvention(drop_first=False, repeat_reference=False, own_delivery=True)
TEXT_MERGES = 512
# What the codec is fitted to, its finer books, and on what two codecs are compared.
CODEC_SHARDS = {"own": 0, "plain": 2, "pseudo": 3, "crowd": 0, "kokoro": 12}
FINER_SHARDS = {"own": 4, "plain": 1, "pseudo": 2, "crowd": 2, "kokoro": 8}
TRANSFER_SHARDS = {"own": 1, "plain": 1, "pseudo": 1, "crowd": 1, "kokoro": 4}
DELIVERED = ("pseudo", "crowd", "kokoro")  # who speaks with the own voice's delivery too


@dataclass(frozen=True)
class Size:
    """How large a checkpoint is, and what a step of its trainings holds.

    Attributes:
        ar_tokens, nar_frames: of a batch.
        loaders: processes that prepare batches; 0 prepares them between the steps.
    """

    ar: dict[str, int]
    nar: dict[str, int]
    ar_tokens: int
    nar_frames: int
    loaders: int

    def ar_dims(self, text: TextTokenizer, speech: SpeechTokenizer) -> ARDims:
        return ARDims(len(text) + len(speech), **self.ar)

    def nar_dims(self, text: TextTokenizer) -> NARDims:
        return NARDims(len(text) + 1, **self.nar)


SIZES = {
    # What two cores can train in hours.
    "small": Size(
        ar={"dim": 256, "n_heads": 4, "n_layers": 6, "ff_dim": 640, "n_spk_layers": 1,
            "spk_ff_dim": 512},
        nar={"dim": 256, "n_heads": 4, "n_enc_layers": 2, "n_dec_layers": 4, "n_spk_layers": 1,
             "ff_dim": 512, "t_emb_dim": 256},
        ar_tokens=6_000, nar_frames=2_000, loaders=0,
    ),
    # 27M parameters, 54 MB in half precision: for half an hour of one large GPU.
    "full": Size(
        ar={"dim": 384, "n_heads": 6, "n_layers": 6, "ff_dim": 1024, "n_spk_layers": 1,
            "spk_ff_dim": 768},
        nar={"dim": 320, "n_heads": 5, "n_enc_layers": 2, "n_dec_layers": 5, "n_spk_layers": 1,
             "ff_dim": 640, "t_emb_dim": 320},
        ar_tokens=60_000, nar_frames=40_000, loaders=12,
    ),
}  # fmt: skip


Shards = dict[str, list[Path]]

# What of a working folder belongs to one codec and its trainings.
STATE = {
    "codec.safetensors", "texttok.model", "tokens", "delivered", "pairs",
    "ar.pt", "nar.pt", "vocoder.pt", "judges.pt", "transposer.pt",
}  # fmt: skip


def training(shards: Shards) -> Shards:
    """All but the first shard of each cast."""
    return {cast: paths[1:] for cast, paths in shards.items()}


def flat(shards: Shards) -> list[Path]:
    """The shards of all casts."""
    return [path for paths in shards.values() for path in paths]


class Workshop:
    """The recipe's steps over one working folder.

    Args:
        folder: where everything of a training lives.
        device: for the models.
        seed: of the corpus and of the first weights; a run that continues draws new examples.
        size: a key of `SIZES`.
    """

    def __init__(
        self, folder: Path, device: str = "cpu", seed: int = 1, size: str = "small"
    ) -> None:
        self.folder = folder
        self.size = SIZES[size]
        self.device = torch.device(device)
        self.seed = seed

    def corpus(self, cast: str, shards: int, workers: int) -> None:
        """Step 1: synthesise the corpus, one cast of speakers after the other."""
        held_out = read_list("everyday")
        make_corpus(self.folder / "corpus", cast, shards, self.seed, workers, held_out)

    def codec(self) -> MelCodec:
        """Step 2: fit the codec, or load the one there is."""
        path = self.folder / "codec.safetensors"
        if path.exists():
            return build_mel_codec(vars(CODEC), load_file(path))
        waves = self._waves(CODEC_SHARDS)
        codec = fit_codec(waves, CODEC, 10, torch.Generator().manual_seed(self.seed))
        return self._finer(codec)

    def finer(self, source: Path) -> None:
        """Instead of step 2: another workshop's codec, its finer books fitted to this corpus."""
        self._finer(Workshop(source).codec())

    def _finer(self, codec: MelCodec) -> MelCodec:
        generator = torch.Generator().manual_seed(self.seed)
        fit_finer(codec, self._finer_examples(codec), 10, generator)
        with replacing(self.folder / "codec.safetensors") as temporary:
            save_file(codec.state_dict(), temporary)
        return codec

    def _finer_examples(self, codec: MelCodec) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and coarse codes: everybody as they are, and with the own voice's delivery."""
        for wave in self._waves(FINER_SHARDS):
            features = codec.features(wave[None])
            yield features, codec.quantise(features)[..., 0]
        for cast, paths in training(self._shards("corpus")).items():
            for path in paths[: FINER_SHARDS[cast] if cast in DELIVERED else 0]:
                yield from delivered_shard(codec, path)

    def tokens(self) -> None:
        """Step 3: codes of the corpus, and the two tokenizers."""
        codec, target = self.codec(), self.folder / "tokens"
        target.mkdir(exist_ok=True)
        for shard in flat(self._shards("corpus")):
            encode_shard(codec, shard, target / shard.name)
        self.tokenizers()

    def delivery(self, workers: int) -> None:
        """Step 4: the codes of other voices with the delivery of the checkpoint's own."""
        codec, target = self.codec(), self.folder / "delivered"
        target.mkdir(exist_ok=True)
        shards = self._shards("corpus")
        paths = flat({cast: shards.get(cast, []) for cast in DELIVERED})
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda path: deliver_shard(codec, path, target / path.name), paths))

    def tokenizers(self) -> tuple[TextTokenizer, SpeechTokenizer]:
        """The text tokenizer of the corpus, and one speech id for each code."""
        path = self.folder / "texttok.model"
        if not path.exists():
            examples = read_examples(flat(training(self._shards("tokens"))))
            learned = train_text((e.text for e in examples), TEXT_MERGES)
            with replacing(path) as temporary:
                temporary.write_text(learned.to_text())
        return TextTokenizer.from_text(path.read_text()), train_speech([], 0)

    def vocoder(self, minutes: float, rate: float = 5e-4, batch: int = 8) -> None:
        """Step 5: train the vocoder, and its judges, for `minutes` in all."""
        codec = self.codec().to(self.device)
        model = self.new_vocoder().to(self.device)
        judges = Judges().to(self.device)
        runs = (
            Run(self.folder, "vocoder", model, minutes, rate),
            Run(self.folder, "judges", judges, minutes, rate),
        )
        cuts = Cuts(training(self._shards("corpus")), self.codec(), batch, self._fresh_seed())
        train_vocoder(model, judges, codec, runs, cuts, self.device, self.seed)

    def ar(self, minutes: float, rate: float = 2.5e-3) -> None:
        """Step 6: train the AR for `minutes` in all."""
        model = self.new_ar().to(self.device)
        train, held_out = self._corpora(ar.SHARES)
        speech = self.tokenizers()[1]
        run = Run(self.folder, "ar", model, minutes, rate)
        batches = ar.Batches(train, speech, self.size.ar_tokens, self._fresh_seed())
        checks = list(islice(ar.Batches(held_out, speech, 3000, 7), 4))
        stream = prefetched(batches, self.size.loaders)
        ar.train_ar(model, run, stream, checks, self.device, self.seed)

    def nar(self, minutes: float, rate: float = 2e-3) -> None:
        """Step 7: train the NAR for `minutes` in all."""
        model = self.new_nar().to(self.device)
        train, held_out = self._corpora(nar.SHARES)
        run = Run(self.folder, "nar", model, minutes, rate)
        batches = nar.Batches(train, self.size.nar_frames, self._fresh_seed())
        checks = list(islice(nar.Batches(held_out, 1500, 7), 3))
        stream = prefetched(batches, self.size.loaders)
        books = self.codec().codebooks.to(self.device)
        nar.train_nar(model, run, stream, checks, books, self.device, self.seed)

    def pairs(self, checkpoint: Path) -> None:
        """Step 9, upon an exported checkpoint: its own voice in other registers, to learn from."""
        engine = Mars5TTS.from_pretrained(checkpoint, device=self.device).engine
        target, shards = self.folder / "pairs", self._shards("corpus").get("own", [])
        target.mkdir(exist_ok=True)
        if not shards:
            raise TrainError(f"{self.folder / 'corpus'} has no shards of the cast 'own'")
        own = transposer.own_register(shards)
        for path in shards:
            transposer.pair_shard(engine, path, own, target / path.name)

    def transposer(self, minutes: float, rate: float = 1e-3) -> None:
        """Step 10: train the transposer for `minutes` in all."""
        torch.manual_seed(self.seed)
        model = Transposer(TRANSPOSER).to(self.device)
        shards = self._shards("pairs")
        held_out = [paths[0] for paths in shards.values()]
        run = Run(self.folder, "transposer", model, minutes, rate)
        stream = transposer.batches(
            transposer.read_pairs(flat(training(shards))), self._fresh_seed()
        )
        checks = list(islice(transposer.batches(transposer.read_pairs(held_out), 7), 8))
        transposer.train_transposer(model, run, stream, checks, self.device)

    def new_ar(self) -> CodecLM:
        """An untrained AR whose speech embeddings start from the codebooks."""
        text, speech = self.tokenizers()
        model = CodecLM(self.size.ar_dims(text, speech))
        generator, books = self._start(model)
        codes = slice(len(text), len(text) + CODEBOOK_SIZE)
        for table in (model.embed.weight, model.ar.output.weight):
            start_from_codebook(table.data[codes], books[0], generator)
        for table, book in zip(_tables(model.ref_chunked_emb), books, strict=True):
            start_from_codebook(table, book, generator)
        return model

    def new_nar(self) -> ResidualTransformer:
        """An untrained NAR whose code embeddings and heads start from the codebooks."""
        model = ResidualTransformer(self.size.nar_dims(self.tokenizers()[0]))
        generator, books = self._start(model)
        for embedding in (model.ref_embedder, model.residual_encoder):
            for table, book in zip(_tables(embedding), books, strict=True):
                start_from_codebook(table, book, generator)
        for q in range(N_CODEBOOKS):
            weight = model.get_parameter(f"residual_decoder.{q}.1.weight")
            start_from_codebook(weight.data[:CODEBOOK_SIZE], books[q], generator)
        return model

    def new_vocoder(self) -> Vocoder:
        """An untrained vocoder over the codec's codebooks."""
        torch.manual_seed(self.seed)
        table = self.codec().vector_table()
        model = Vocoder(VOCODER, len(table))
        model.table.copy_(table)
        return model

    def _start(self, model: torch.nn.Module) -> tuple[torch.Generator, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        initialise(model, generator)
        return generator, self.codec().codebooks

    def transfer(self, source: Path) -> None:
        """Start from another workshop's latest weights, whatever its codec was."""
        other = Workshop(source)
        shares = mixtures(other.codec(), self.codec(), self._waves(TRANSFER_SHARDS))
        ar, nar, vocoder = self.new_ar(), self.new_nar(), self.new_vocoder()
        ar.load_state_dict(load_weights(source, "ar"))
        nar.load_state_dict(load_weights(source, "nar"))
        table = {"table": vocoder.table}  # the new codec's vectors
        vocoder.load_state_dict(load_weights(source, "vocoder") | table)
        carry_ar(ar, shares, len(self.tokenizers()[0]))
        carry_nar(nar, shares)
        for name, model in (("ar", ar), ("nar", nar), ("vocoder", vocoder)):
            begin(self.folder, name, model).save()

    def adopt(self, checkpoint: Path) -> None:
        """Take a checkpoint's codec, tokenizer and weights as the state of this folder.

        Raises:
            TrainError: the folder has a codec, tokens or trainings already, or the checkpoint is
                not of this recipe's sizes.
        """
        there = sorted(path.name for path in self.folder.iterdir() if path.name in STATE)
        if there:
            raise TrainError(f"{self.folder} has {there[0]} already: adopt into a new folder")
        engine = Mars5TTS.from_pretrained(checkpoint, device="cpu").engine
        mover = engine.converter and engine.converter.transposer
        tokenizers = engine.text_tokenizer, engine.speech_tokenizer
        own = vars(self.described(*tokenizers, mover is not None))
        for part in ("ar", "nar", "prompt", "codec"):
            stated = getattr(engine.config, part)
            if stated != own[part]:
                raise TrainError(
                    f"{checkpoint} is not of this recipe: its {part} is {stated}, with this "
                    f"--size it must be {own[part]}"
                )
        save_file(transposer.mel_codec(engine).state_dict(), self.folder / "codec.safetensors")
        (self.folder / "texttok.model").write_text(engine.text_tokenizer.to_text())
        (self.folder / "facts.json").write_text(json.dumps(engine.config.facts))
        models: dict[str, Module] = {"transposer": mover} if mover else {}
        models |= {"nar": engine.nar, "vocoder": engine.vocoder, "ar": engine.ar}
        for name, model in models.items():
            begin(self.folder, name, model).save()

    def described(
        self, text: TextTokenizer, speech: SpeechTokenizer, has_transposer: bool
    ) -> ModelConfig:
        """What checkpoints of this recipe state of their sizes."""
        codec = {"name": MelCodec.kind, "dims": asdict(CODEC), "vocoder": asdict(VOCODER)}
        if has_transposer:
            codec["transposer"] = asdict(TRANSPOSER)
        sizes = self.size.ar_dims(text, speech), self.size.nar_dims(text)
        return ModelConfig(*sizes, PROMPT, codec)

    def facts(self) -> dict[str, Any]:
        """What the adopted checkpoint states about itself, if one was."""
        path = self.folder / "facts.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def average(self, source: Path, name: str, share: float) -> None:
        """Mix a training's latest weights, in a share, with those that it started from.

        What a model has learned lately and what it knew before can be had together
        (https://arxiv.org/abs/2109.01903). The training is over: its state keeps the mixture.

        Raises:
            TrainError: the share is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise TrainError(f"--share must be a number between 0 and 1, got {share}")
        path, before = self.folder / f"{name}.pt", load_weights(source, name)
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = state["model"]
        state["model"] = {key: before[key].lerp(model[key], share) for key in model}
        with replacing(path) as temporary:
            torch.save(state, temporary)

    def pieces(self, target: Path) -> None:
        """Write the AR's and the NAR's latest weights to `target` in small files."""
        target.mkdir(parents=True, exist_ok=True)
        for name in ("ar", "nar"):
            path = self.folder / f"{name}.pt"
            if path.exists():
                split(torch.load(path, map_location="cpu", weights_only=True), name, target)

    def join(self, source: Path) -> None:
        """Take up the weights that `pieces` wrote; a training goes on from them."""
        for name, model in (("ar", self.new_ar()), ("nar", self.new_nar())):
            state = joined(name, source)
            if state is None:
                continue
            model.load_state_dict(state.pop("model"))
            run = begin(self.folder, name, model)
            run.seconds, run.step, run.seen = state["seconds"], state["step"], state["seen"]
            run.save()

    def _corpora(self, shares: dict[str, float]) -> tuple[Corpus, Corpus]:
        """Everything but the first token shard of each cast, and those, which no training sees."""
        text, shards = self.tokenizers()[0], self._shards("tokens")
        held_out = {cast: paths[:1] for cast, paths in shards.items()}
        train, checks = (
            Corpus(
                {cast: read_examples(paths, self.folder / "delivered") for cast, paths in part},
                text,
                shares,
            )
            for part in (training(shards).items(), held_out.items())
        )
        return train, checks

    def _waves(self, counts: dict[str, int]) -> Iterator[Tensor]:
        """The waves of so many shards of each cast, (T,) float32."""
        for cast, paths in self._shards("corpus").items():
            for path in paths[1 : 1 + counts[cast]]:
                for _, pcm in read_shard(path):
                    yield as_wave(pcm)

    def _shards(self, kind: str) -> Shards:
        """Shards by cast, in order; the first of each cast is held out."""
        shards: Shards = {}
        for path in sorted((self.folder / kind).glob("*-*.safetensors")):
            shards.setdefault(path.name.split("-")[0], []).append(path)
        short = {cast: len(paths) for cast, paths in shards.items() if len(paths) < 2}
        if short or not shards:
            raise TrainError(
                f"{self.folder / kind} needs at least 2 shards of every cast (the first is held "
                f"out), found {short or 'none'}: run `python -m mars5.train {kind}` first"
            )
        return shards

    def _fresh_seed(self) -> int:
        """A run that continues draws other examples than before."""
        return self.seed + time.time_ns()


def _tables(embedding: torch.nn.Module) -> Iterator[Tensor]:
    """The rows of real codes of each codebook's table."""
    for weight in embedding.parameters():
        yield weight.data[:CODEBOOK_SIZE]
