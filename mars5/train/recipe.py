"""The recipe of the embedded checkpoint: sizes, folders, and one function for each step.

All steps work in one folder and skip or continue what is there, so that a killed run is started
again by the same command. `python -m mars5.train STEP` calls them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mars5.ar.model import CodecLM
from mars5.codec import MelCodec, MelCodecDims, build_mel_codec
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, ARDims, NARDims
from mars5.errors import TrainError
from mars5.files import replacing
from mars5.nar.model import ResidualTransformer
from mars5.tokenizers import SpeechTokenizer, TextTokenizer
from mars5.train import ar, nar
from mars5.train.batching import Corpus
from mars5.train.bpe import train_speech, train_text
from mars5.train.codec import fit_codec
from mars5.train.corpus import make_corpus, read_shard
from mars5.train.loop import Run, initialise, start_from_codebook
from mars5.train.tokens import encode_shard, read_examples
from mars5.train.vocoder import Cuts, train_vocoder
from mars5.vocoder import Vocoder, VocoderDims

CODEC = MelCodecDims(stack=2, rank=96)
VOCODER = VocoderDims(
    channels=CODEC.n_mels, stack=CODEC.stack, dim=256, ff_dim=768, n_layers=6, n_bandwidths=0
)
TEXT_MERGES = 512
CODEC_SHARDS = 12  # corpus shards the codec is fitted to
EVERYDAY = Path(__file__).parent / "data" / "everyday20.txt"


def ar_dims(text: TextTokenizer, speech: SpeechTokenizer) -> ARDims:
    return ARDims(len(text) + len(speech), 256, 4, 6, 640, n_spk_layers=1, spk_ff_dim=512)


def nar_dims(text: TextTokenizer) -> NARDims:
    return NARDims(
        len(text) + 1, dim=256, n_heads=4, n_enc_layers=2, n_dec_layers=4, n_spk_layers=1,
        ff_dim=512, t_emb_dim=256,
    )  # fmt: skip


class Workshop:
    """The recipe's steps over one working folder.

    Args:
        folder: where everything of a training lives.
        device: for the three trainings.
        seed: of the corpus and of the first weights; a run that continues draws new examples.
    """

    def __init__(self, folder: Path, device: str = "cpu", seed: int = 1) -> None:
        self.folder = folder
        self.device = torch.device(device)
        self.seed = seed

    def corpus(self, shards: int, workers: int) -> None:
        """Step 1: synthesise the corpus."""
        held_out = EVERYDAY.read_text(encoding="utf-8").splitlines()
        make_corpus(self.folder / "corpus", shards, self.seed, workers, held_out)

    def codec(self) -> MelCodec:
        """Step 2: fit the codec, or load the one there is."""
        path = self.folder / "codec.safetensors"
        if path.exists():
            return build_mel_codec(vars(CODEC), load_file(path))
        waves = (
            torch.from_numpy(pcm).float() / 32768
            for shard in self._shards("corpus")[:CODEC_SHARDS]
            for _, pcm in read_shard(shard)
        )
        codec = fit_codec(waves, CODEC, 10, torch.Generator().manual_seed(self.seed))
        with replacing(path) as temporary:
            save_file(codec.state_dict(), temporary)
        return codec

    def tokens(self) -> None:
        """Step 3: codes of the corpus, and the two tokenizers."""
        codec, target = self.codec(), self.folder / "tokens"
        target.mkdir(exist_ok=True)
        for shard in self._shards("corpus"):
            encode_shard(codec, shard, target / shard.name)
        self.tokenizers()

    def tokenizers(self) -> tuple[TextTokenizer, SpeechTokenizer]:
        """The text tokenizer of the corpus, and one speech id for each code."""
        path = self.folder / "texttok.model"
        if not path.exists():
            examples = read_examples(self._shards("tokens")[1:])
            learned = train_text((e.text for e in examples), TEXT_MERGES)
            with replacing(path) as temporary:
                temporary.write_text(learned.to_text())
        return TextTokenizer.from_text(path.read_text()), train_speech([], 0)

    def vocoder(self, minutes: float, rate: float = 1e-3, batch: int = 16) -> None:
        """Step 4: train the vocoder for `minutes` in all."""
        codec = self.codec().to(self.device)
        model = self.new_vocoder().to(self.device)
        run = Run(self.folder, "vocoder", model, minutes, rate)
        cuts = Cuts(self._shards("corpus")[1:], self.codec(), batch, self._fresh_seed())
        train_vocoder(model, codec, run, cuts, self.device, self.seed)

    def ar(self, minutes: float, rate: float = 2.5e-3, tokens: int = 6000) -> None:
        """Step 5: train the AR for `minutes` in all."""
        model = self.new_ar().to(self.device)
        train, held_out = self._corpora()
        speech = self.tokenizers()[1]
        run = Run(self.folder, "ar", model, minutes, rate)
        batches = ar.Batches(train, speech, tokens, self._fresh_seed())
        checks = list(islice(ar.Batches(held_out, speech, 3000, 7), 4))
        ar.train_ar(model, run, batches, checks, self.device, self.seed)

    def nar(self, minutes: float, rate: float = 2e-3, frames: int = 2000) -> None:
        """Step 6: train the NAR for `minutes` in all."""
        model = self.new_nar().to(self.device)
        train, held_out = self._corpora()
        run = Run(self.folder, "nar", model, minutes, rate)
        batches = nar.Batches(train, frames, self._fresh_seed())
        checks = list(islice(nar.Batches(held_out, 1500, 7), 3))
        nar.train_nar(model, run, batches, checks, self.device, self.seed)

    def new_ar(self) -> CodecLM:
        """An untrained AR whose speech embeddings start from the codebooks."""
        text, speech = self.tokenizers()
        model = CodecLM(ar_dims(text, speech))
        generator, books = self._start(model)
        codes = slice(len(text), len(text) + CODEBOOK_SIZE)
        for table in (model.embed.weight, model.ar.output.weight):
            start_from_codebook(table.data[codes], books[0], generator)
        for table, book in zip(_tables(model.ref_chunked_emb), books, strict=True):
            start_from_codebook(table, book, generator)
        return model

    def new_nar(self) -> ResidualTransformer:
        """An untrained NAR whose code embeddings and heads start from the codebooks."""
        model = ResidualTransformer(nar_dims(self.tokenizers()[0]))
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

    def _corpora(self) -> tuple[Corpus, Corpus]:
        """Everything but the first token shard, and that one, which no training sees."""
        text, shards = self.tokenizers()[0], self._shards("tokens")
        return Corpus(read_examples(shards[1:]), text), Corpus(read_examples(shards[:1]), text)

    def _shards(self, kind: str) -> list[Path]:
        shards = sorted((self.folder / kind).glob("shard-*.safetensors"))
        if len(shards) < 2:  # the first is held out
            raise TrainError(
                f"{self.folder / kind} holds {len(shards)} shards, at least 2 are needed: run "
                f"`python -m mars5.train {kind}` first"
            )
        return shards

    def _fresh_seed(self) -> int:
        """A run that continues draws other examples than before."""
        return self.seed + time.time_ns()


def _tables(embedding: torch.nn.Module) -> Iterator[Tensor]:
    """The rows of real codes of each codebook's table."""
    for weight in embedding.parameters():
        yield weight.data[:CODEBOOK_SIZE]
