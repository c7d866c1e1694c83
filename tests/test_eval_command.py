"""`mars5 eval` at a shell, and the search over settings."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from mars5.cli import main
from mars5.errors import ConfigError
from mars5.eval.lists import read_list
from mars5.eval.sweep import Journal, Settings, Stage, Trial, prefer, sweep

needs_extra = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("faster_whisper", "rapidfuzz", "resemblyzer")),
    reason="needs the extra: pip install 'mars5[eval]'",
)
READER = Path(__file__).parent.parent / "examples" / "reader.wav"


@needs_extra
def test_a_folder_of_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    shutil.copy(READER, folder / "1.wav")
    sf.write(folder / "2.wav", np.zeros(24_000), 24_000)
    said = "Unless to be rather cold hearted and rather selfish is to be ill disposed."
    (tmp_path / "list.txt").write_text(f"{said}\nNothing is heard here.\n")
    card, plot = tmp_path / "card.json", tmp_path / "card.svg"
    line = ["eval", str(folder), "--list", str(tmp_path / "list.txt"), "--asr", "tiny.en"]
    assert main([*line, "--json", str(card), "--plot", str(plot), "--only-words"]) == 0
    shown = capsys.readouterr().out
    assert "word error rate" in shown
    assert "[empty]" in shown
    (found,) = json.loads(card.read_text())["cards"]
    assert found["failures"] == {"empty": 1}
    assert [row["seed"] for row in found["rows"]] == [None, None]
    assert found["rows"][0]["errors"]["tiny.en"] <= 2
    assert found["rows"][1]["errors"]["tiny.en"] == 4
    assert plot.stat().st_size > 0


@needs_extra
def test_a_checkpoint_clones_and_is_compared(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "card.json"
    line = ["eval", str(tiny_folder), "--limit", "1", "--seeds", "5", "6", "--asr", "tiny.en"]
    line += ["--ref", str(READER), "--dnsmos", "1", "--json", str(card), "--show", "0"]
    assert main([*line, "--set", "timesteps=2", "--device", "cpu"]) == 0
    rows = json.loads(card.read_text())["cards"][0]["rows"]
    assert [(row["seed"], row["reference"]) for row in rows] == [(5, str(READER)), (6, str(READER))]
    assert all(row["took"] > 0 for row in rows)
    assert "similarity of one person's recordings" in capsys.readouterr().out


@needs_extra
def test_the_embedded_checkpoint_is_understood() -> None:
    """A loose bound: a broken pipeline cannot pass."""
    from mars5.eval.ears import Recogniser
    from mars5.eval.scorecard import Judges
    from mars5.eval.sources import load_checkpoint

    source = load_checkpoint("nano", {}, device="cpu")
    card = Judges([Recogniser("base")]).judge(source, read_list("everyday")[:5], [1])
    assert card.figures["wer base"].mean < 30


@needs_extra
def test_what_streams_is_understood_and_comes_early() -> None:
    from mars5.eval.ears import Recogniser
    from mars5.eval.scorecard import Judges
    from mars5.eval.sources import load_checkpoint

    source = load_checkpoint("nano", {}, device="cpu", streamed=True)
    card = Judges([Recogniser("base")]).judge(source, read_list("everyday")[5:8], [1])
    assert card.figures["wer base"].mean < 30
    heard = source.speak(read_list("everyday")[5:6], [1])
    assert all((u.first_sound or 0) < (u.took or 0) for u in heard)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--list", "nowhere.txt"], "everyday"),
        (["--plot", "card.txt"], ".png"),
        (["--set", "top_q=1"], "did you mean"),
        (["--sweep", "folder", "nano", "other"], None),
        (["--seeds", "-1"], None),
        (["--limit", "0"], None),
    ],
)
def test_bad_lines_are_refused_before_work(
    arguments: list[str], message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if message is None:
        with pytest.raises(SystemExit):
            main(["eval", *arguments])
    else:
        assert main(["eval", *arguments]) == 1
        assert message in capsys.readouterr().err


# the search


def _trial(settings: Settings, *wer: float) -> Trial:
    return Trial(settings, list(wer), 0.0, None, None)


def test_preferred_is_the_first_within_one_standard_error() -> None:
    trials = [_trial({"t": 1}, 22, 24), _trial({"t": 2}, 19, 23), _trial({"t": 3}, 20, 20)]
    assert prefer(trials).settings == {"t": 3}
    assert prefer(trials[:2]).settings == {"t": 1}  # 23 <= 21 + 2
    assert prefer(trials[::-1]).settings == {"t": 3}


def test_candidates_start_from_the_best_so_far() -> None:
    best = {"top_p": 0.9, "top_k": 0}
    coarse = Stage("x", {"top_p": (0.5, 0.9)})
    assert coarse.candidates(best) == [best, {"top_p": 0.5, "top_k": 0}]
    fine = Stage("x", {"top_p": (0.5, 1.0, 2.0)}, relative=True)
    assert [c["top_p"] for c in fine.candidates(best)] == [0.9, 0.45, 1.0]
    fresh = Stage("x", {"top_k": (1, 2)}, keep=False)
    assert [c["top_k"] for c in fresh.candidates(best)] == [1, 2]


STAGES = (Stage("one", {"a": (1, 2, 3)}), Stage("two", {"b": (1, 2, 3)}))


def test_search_finds_the_least_and_continues(tmp_path: Path) -> None:
    """After a kill only what the journal lacks is measured."""
    asked: list[Settings] = []

    def measure(settings: Settings) -> Trial:
        asked.append(settings)
        return _trial(settings, 10 * abs(settings["a"] - 2) + 5 * abs(settings["b"] - 3))

    context = {"model": "x"}
    said: list[str] = []
    journal = Journal(tmp_path / "sweep", context)
    start = {"a": 1, "b": 1}
    assert sweep(measure, start, journal, said.append, STAGES) == {"a": 2, "b": 3}
    assert len(asked) == 5
    path = tmp_path / "sweep" / "trials.jsonl"
    whole = path.read_text()
    path.write_text(whole[: len(whole) - 9])  # killed while the last line was written
    again = Journal(tmp_path / "sweep", context)
    assert len(again.trials) == 4
    assert sweep(measure, start, again, said.append, STAGES) == {"a": 2, "b": 3}
    assert len(asked) == 6
    assert path.read_text() == whole


@pytest.mark.parametrize(("settle", "tried"), [(0, {1, 2}), (100, {1, 2}), (200, {1})])
def test_codes_that_settle_at_once_are_not_searched_for_draws(
    tmp_path: Path, settle: int, tried: set[int]
) -> None:
    steps: list[int] = []

    def measure(settings: Settings) -> Trial:
        steps.append(settings["timesteps"])
        return _trial(settings, 0 if settings["nar_settle_step"] == settle else 9)

    stages = (
        Stage("settling", {"nar_settle_step": (0, 100, 200)}),
        Stage("steps", {"timesteps": (1, 2)}, of_draws=True),
    )
    start = {"nar_settle_step": 0, "timesteps": 1}
    best = sweep(measure, start, Journal(tmp_path, {}), lambda _: None, stages)
    assert best == {"nar_settle_step": settle, "timesteps": 1}
    assert set(steps) == tried


def test_journals_of_other_searches_are_refused(tmp_path: Path) -> None:
    Journal(tmp_path, {"model": "x"})
    with pytest.raises(ConfigError, match="another search"):
        Journal(tmp_path, {"model": "y"})
    (tmp_path / "trials.jsonl").write_text("no json\n")
    with pytest.raises(ConfigError, match="cannot use the journal"):
        Journal(tmp_path, {"model": "x"})


@needs_extra
def test_search_at_a_shell(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from mars5.eval import command

    short = (Stage("AR", {"temperature": (0.7,)}), Stage("NAR", {"timesteps": (2, 3)}, keep=False))
    real = command.run_sweep
    monkeypatch.setattr(command, "run_sweep", lambda *args: real(*args, short))
    line = ["eval", str(tiny_folder), "--sweep", str(tmp_path / "s"), "--limit", "1", "--seeds"]
    line += ["1", "2", "--ref", str(READER), "--dnsmos", "0", "--device", "cpu"]
    assert main(line) == 0
    assert "WER, %" in capsys.readouterr().out
    best = json.loads((tmp_path / "s" / "best.json").read_text())
    assert set(best) == {"temperature", "timesteps"}
    assert main(["--quiet", *line]) == 0  # everything is in the journal
