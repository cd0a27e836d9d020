"""The configurations for `accelerate launch`: accelerate reads them, and they ask for what their first lines say."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

FOLDER = Path(__file__).parents[2] / "scripts" / "accelerate"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_accelerate_reads_it(file):
    config = load_config_from_file(str(file))
    assert config.distributed_type == "MULTI_GPU" and not config.use_cpu
    assert config.num_processes == 8 * config.num_machines
    assert config.mixed_precision == "no", "the recipe says the precision"
    assert file.read_text(encoding="utf-8").startswith("# ")


def test_there_is_one_for_one_machine_and_one_for_several():
    assert [file.stem for file in sorted(FOLDER.glob("*.yaml"))] == ["one_node", "several_nodes"]
