"""kar.toml is read strictly: what is unknown, of a wrong type or out of range is one clear error."""

from __future__ import annotations

import dataclasses
import re
import runpy
import tomllib
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest

from kar_aug._helpers.settings import read_value
from kar_aug.config import (
    CompareConfig,
    Config,
    DataConfig,
    EncodeConfig,
    LanguageModel,
    PromptConfig,
    TrainingConfig,
    fitting_batch,
)
from kar_aug.errors import ConfigError

# Which writes docs/settings.md: no module of a package.
settings_page = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "docs" / "settings.py")))
SECTIONS = settings_page.sections()
DATA = '[data]\ndataset = "movielens-100k"\n'


def parse(content: str, changes: Any = None) -> Config:
    return Config.parse(content, "kar.toml", Path("/project"), changes)


def test_what_is_not_said_is_the_default() -> None:
    config = parse(DATA)
    assert config == Config(DataConfig(dataset="movielens-100k"), folder=Path("/project"))
    assert (config.work, config.path("a/b.csv")) == (Path("/project/.kar"), Path("/project/a/b.csv"))


def test_every_section_is_read(tmp_path: Path) -> None:
    content = """
workdir = "out"
[data]
interactions = "events.parquet"
items = "items.csv"
user_features = ["gender", "age"]
click_above = 4
[prompts]
scenario = "own.toml"
max_users = 10
[generate]
model = "m"
base_url = "http://localhost:8000/v1"
timeout = 30
accept_truncated = true
[encode]
dtype = "float32"
[compare]
backbones = ["DIN"]
hidden_units = [64, 32]
learning_rate = 1e-2
"""
    (tmp_path / "kar.toml").write_text(content.replace("\n", "\r\n"), encoding="utf-8", newline="")
    config = Config.load(tmp_path / "kar.toml")
    assert config.data == DataConfig(
        interactions="events.parquet", items="items.csv", user_features=("gender", "age"), click_above=4.0
    )
    assert isinstance(config.data.click_above, float)
    assert config.prompts == PromptConfig("own.toml", max_users=10)
    assert config.generate == LanguageModel("m", "http://localhost:8000/v1", timeout=30.0, accept_truncated=True)
    assert config.encode == EncodeConfig(dtype="float32")
    assert config.compare == CompareConfig(backbones=("DIN",), hidden_units=(64, 32), learning_rate=0.01)
    assert config.work == tmp_path / "out"
    assert config.as_dict()["compare"]["hidden_units"] == (64, 32)


@pytest.mark.parametrize("name", ["template.toml", "demo.toml"])
def test_the_packaged_files_are_valid(name: str) -> None:
    content = files("kar_aug.cli").joinpath(name).read_text(encoding="utf-8")
    assert parse(content).data.dataset == "movielens-100k"


def test_the_template_shows_every_setting_with_its_default() -> None:
    content = files("kar_aug.cli").joinpath("template.toml").read_text(encoding="utf-8")
    for_a_start = {"dataset", "user_features", "item_features", "backbones", "injections"}
    uncommented = tomllib.loads(re.sub(r"^# (?=\w+ = )", "", content, flags=re.MULTILINE))
    assert uncommented.pop("workdir") == ".kar" and list(uncommented) == list(SECTIONS)
    for section, kind in SECTIONS.items():
        shown, hints = uncommented[section], get_type_hints(kind)
        assert set(shown) == {field.name for field in dataclasses.fields(kind)}
        for field in dataclasses.fields(kind):
            value, default = read_value(field.name, hints[field.name], shown[field.name]), settings_page.default(field)
            is_example = default in (None, (), {}) or field.name in for_a_start
            assert is_example or value == default, f"[{section}] {field.name}"


def test_an_epoch_of_a_small_log_has_steps_enough() -> None:
    sizes = {rows: fitting_batch(rows) for rows in (1, 1_599, 1_600, 3_199, 3_200, 51_199, 51_200, 10**8)}
    assert [*sizes.values()] == [32, 32, 32, 32, 64, 512, 1024, 1024]
    assert TrainingConfig().fitted(2_000).batch_size == 32
    assert TrainingConfig(batch_size=4096).fitted(2_000).batch_size == 4096, "what is given stays"


def test_the_page_of_settings_says_what_the_code_says() -> None:
    page = settings_page.PAGE.read_text(encoding="utf-8")
    assert page == settings_page.page(), "write it anew: python docs/settings.py"
    for section, kind in SECTIONS.items():
        told = settings_page.effects(kind)
        assert set(told) == {field.name for field in dataclasses.fields(kind)} and all(told.values()), section
        rows = page.partition(f"## [{section}]\n")[2].partition("\n## ")[0]
        assert all(f"\n| `{name}` | " in rows for name in told), section


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('protocol = "leave-one-out"', "[data] protocol 'leave-one-out' is unknown. Known: user, temporal"),
        ("history_share = 0", "[data] history_share must be between 0.001 and 0.9, not 0.0."),
        ('columns = { user_id = "uid" }', "[data] columns goes with interactions = ... only."),
        ('interactions = "a.csv"', "[data] needs either dataset = ... or interactions = ..., and not both."),
    ],
)
def test_a_wrong_protocol_or_column_is_one_clear_error(settings: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(DATA + settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("columns = { user_id = 3 }", '[data] columns must hold names of columns: { user_id = "uid", timestamp'),
        ('columns = { user_id = "u", item_id = "u" }', "[data] columns names one column of yours twice."),
        ('columns = ["uid"]', "[data] columns must be a table: { name = value }, not ['uid']."),
        ('path = "a.zip"', "[data] path goes with dataset = ... only."),
    ],
)
def test_wrong_names_of_columns_are_one_clear_error(settings: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(f'[data]\ninteractions = "events.csv"\n{settings}')


def test_options_of_the_command_line_go_over_the_file() -> None:
    content = DATA + '[generate]\nmodel = "from file"\nmax_tokens = 9\n'
    changes = {"generate": {"model": "from option", "max_tokens": None}, "compare": {"backbones": ("DIN",), "seeds": 2}}
    config = parse(content, changes)
    assert (config.generate.model, config.generate.max_tokens) == ("from option", 9)
    assert (config.compare.backbones, config.compare.seeds) == (("DIN",), 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (DATA + "memory = '2 gold'", '[data] memory must be "512 MB", "2 GB" or the like, not \'2 gold\'.'),
        (DATA + "histroy = 3", "there is no setting 'histroy' in [data]. Did you mean 'history'?"),
        (DATA + "[generate]\nmax_token = 3", "'max_token' in [generate]. Did you mean 'max_tokens'?"),
        (DATA + "[generation]\nmodel = 'm'", "'generation' at the top level. Did you mean 'generate'?"),
        (DATA + "[encode]\nzzz = 1", "there is no setting 'zzz' in [encode]. Known: encoder, dtype"),
        ("wokdir = '.'\n" + DATA, "'wokdir' at the top level. Did you mean 'workdir'?"),
    ],
)
def test_an_unknown_setting_comes_with_a_suggestion(content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"^kar\.toml: .*" + re.escape(message)):
        parse(content)


@pytest.mark.parametrize("where", ["[generate]\n", ""])
def test_an_api_key_is_no_setting_and_is_not_repeated(where: str) -> None:
    with pytest.raises(ConfigError, match=r"api_key .*keys are never read from kar\.toml") as raised:
        parse(f"{where}api_key = 'sk-planted-key'\n{DATA}")
    assert "sk-planted" not in str(raised.value)
    names = {field.name for kind in (DataConfig, PromptConfig, LanguageModel) for field in dataclasses.fields(kind)}
    assert {name for name in names if "key" in name or "secret" in name} == {"api_key_env", "api_key_file"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("[data]\nhistory = '3'", "[data] history must be of type int, not '3'."),
        ("[data]\nhistory = 1.5", "[data] history must be of type int, not 1.5."),
        ("[data]\nhistory = true", "[data] history must be of type int, not True."),
        ("[data]\nclick_above = '3'", "[data] click_above must be of type float, not '3'."),
        ("[data]\nuser_features = 'age'", "[data] user_features must be a list of strs, not 'age'."),
        ("[data]\nuser_features = [1]", "[data] user_features must be a list of strs, not [1]."),
        ("[prompts]\nmax_users = 'all'", "[prompts] max_users must be of type int, not 'all'."),
        ("[generate]\naccept_truncated = 1", "[generate] accept_truncated must be of type bool, not 1."),
        ("[generate]\ntemperature = false", "[generate] temperature must be of type float, not False."),
        ("[compare]\nhidden_units = [1.5]", "[compare] hidden_units must be a list of ints, not [1.5]."),
        ("[compare]\nhidden_units = [true]", "[compare] hidden_units must be a list of ints"),
    ],
)
def test_a_value_of_a_wrong_type_is_named(setting: str, message: str) -> None:
    content = setting.replace("[data]", DATA.strip()) if setting.startswith("[data]") else DATA + setting
    with pytest.raises(ConfigError, match=re.escape(f"kar.toml: {message}")):
        parse(content)


@pytest.mark.parametrize("workdir", ["3", "['.kar']", "true"])
def test_a_workdir_that_is_no_text_is_named(workdir: str) -> None:
    with pytest.raises(ConfigError, match="workdir"):
        parse(f"workdir = {workdir}\n{DATA}")


@pytest.mark.parametrize("changes", [None, {"data": {"history": 1}}])
@pytest.mark.parametrize("content", ["data = 3", "[[data]]\nhistory = 3"])
def test_a_section_that_is_none_is_named(content: str, changes: Any) -> None:
    with pytest.raises(ConfigError, match=r"data must be a section: \[data\]"):
        parse(content, changes)


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        *[("generate", f"{name} = 0") for name in ("max_tokens", "concurrency", "timeout", "tries")],
        *[("compare", f"{name} = 0") for name in ("seeds", "embedding_dim", "batch_size", "epochs", "expert_hidden")],
        *[("prompts", f"{name} = {value}") for name in ("max_users", "max_items", "max_events") for value in (-1,)],
        ("prompts", "max_events = 0"),
        ("data", "history = -1"),
        ("data", "history_length = -1"),
        ("data", "seed = -1"),
        ("data", "validation = 1.0"),
        ("compare", "dropout = 1.5"),
    ],
)
def test_a_number_out_of_range_is_named_before_anything_runs(section: str, setting: str) -> None:
    """Before money is spent: `max_users = -1` would ask about all users but the last."""
    content = DATA + setting if section == "data" else f"{DATA}[{section}]\n{setting}"
    with pytest.raises(ConfigError, match=rf"^kar\.toml: \[{section}\] .*{setting.split()[0]}"):
        parse(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "[data] names no data yet. Let your files be looked at: kar-aug init --data FILES --force"),
        (DATA + "interactions = 'x.csv'", "[data] needs either dataset = ... or interactions = ..., and not both."),
        ("[data]\ndataset = 'movielens'", "[data] dataset 'movielens' is unknown. Known: movielens-100k"),
        (DATA + "[encode]\ndtype = 'int8'", "[encode] dtype 'int8' is unknown. Known: float16, float32"),
        (DATA + "[compare]\nbackbones = ['DCN']", "there is no backbone 'DCN'. Known: DeepFM, DIN, FiBiNET"),
        (DATA + "[compare]\ncontrols = ['noise']", "there is no control 'noise'. Known: metadata, shuffled"),
        (DATA + "[compare]\nknowledge = ['user', 'user']", "[compare] knowledge names one twice."),
        (DATA + "[compare]\nknowledge = []", "controls imitate knowledge"),
        (DATA + "[compare.stores]\nrandom = 'folder'", "'random' is an arm already"),
        (DATA + "[compare.stores]\nplots = { film = 'folder' }", "plots must be a folder, or { user = folder"),
        ("[data", "kar.toml is not valid TOML: "),
        (DATA + DATA, "kar.toml is not valid TOML: "),
    ],
)
def test_what_cannot_be_meant_is_named(content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        parse(content)
    assert str(raised.value).startswith("kar.toml") and "\n" not in str(raised.value)


def test_a_re_ranker_and_itself_without_the_user_are_two_models() -> None:
    lists = DATA + "lists = 'impressions'\n[compare]\ntask = 'rerank'\nbackbones = "
    assert parse(f"{lists}['PRM', 'kar:PRM']").compare.backbones == ("PRM", "kar:PRM")
    with pytest.raises(ConfigError, match="names one twice"):
        parse(f"{lists}['kar:PRM', 'kar:PRM']")


def test_a_setting_is_read_under_its_former_name_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert parse(DATA + '[prompts]\nhistory = "informative"').prompts.selection == "informative"
    assert caplog.messages == ["[prompts] history is called selection now."]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: there is no such file. Make one with: kar-aug init"):
        Config.load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="there is no such file"):
        Config.load(tmp_path)
    (tmp_path / "kar.toml").write_bytes(b'workdir = "\xff"')
    with pytest.raises(ConfigError, match=r"kar\.toml cannot be read"):
        Config.load(tmp_path / "kar.toml")


def test_a_model_knows_what_is_hashed() -> None:
    model = LanguageModel(max_tokens=5, temperature=0.5, seed=3)
    assert model.parameters == {"max_tokens": 5, "temperature": 0.5, "seed": 3}


def test_columns_of_one_table_have_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "kar.toml"
    path.write_text(
        '[data]\ninteractions = "e.csv"\ncolumns = { user_id = "uid", items = { item_id = "sku", title = "uid" } }'
    )
    assert Config.load(path).data.columns["items"] == {"item_id": "sku", "title": "uid"}
    for wrong, message in (
        ('items = { item_id = "sku", title = "sku" }', "names one column of yours twice"),
        ("items = { item_id = 3 }", "must hold names of columns"),
        ('movies = { item_id = "sku" }', "must hold names of columns"),
    ):
        path.write_text(f'[data]\ninteractions = "e.csv"\ncolumns = {{ {wrong} }}')
        with pytest.raises(ConfigError, match=message):
            Config.load(path)
    path.write_text('[data]\ndataset = "movielens-100k"\nid_type = "string"')
    with pytest.raises(ConfigError, match=r"\[data\] id_type goes with interactions = \.\.\. only"):
        Config.load(path)
