"""Cluster files: what is read, what is refused and in which words, what survives an edit."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.core.errors import UserError
from manager.core.ids import NodeId
from manager.core.model import (
    ClusterConfig,
    Convergence,
    MigrationLimits,
    NodeConfig,
    PlacementPolicy,
    RetryPolicy,
    WorkLimits,
)
from manager.store.cluster_files import (
    MAX_BYTES,
    ClusterFiles,
    config_from_uris,
    default_peer_uri,
    read_cluster_file,
    write_cluster_file,
)

GOOD = """\
# the lab in Berlin
format = 1
name = "lab"      # shown everywhere
colour = "#123abc"

[[nodes]]
name = "n1"
uri = "qemu+ssh://root@n1/system"   # the first
addresses = [
  "10.0.0.1",
  "192.168.9.1",
]
credentials = "lab n1"

[[nodes]]
uri = "qemu+ssh://root@n2:2222/system?keyfile=/home/a/key"
peer_uri = "qemu+tls://n2/system"
ssh = "root@n2:2222"

[migration]
outgoing_per_node = 3
networks = ["10.20.0.0/24", "fd00::/64"]

[migration.convergence]
pause_steps_ms = [100, 400]

[storage]
shared_paths = ["/srv/vms/"]

[placement]
cpu_overcommit = 2
"""


@pytest.fixture
def prod(tmp_path: Path) -> Path:
    path = tmp_path / "prod.toml"
    path.write_text(GOOD)
    return path


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_cluster_file(path)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_key_is_read_and_the_rest_has_its_default(prod: Path) -> None:
    assert read_cluster_file(prod) == ClusterConfig(
        name="lab",
        colour="#123abc",
        nodes=(
            NodeConfig(
                name=NodeId("n1"),
                uri="qemu+ssh://root@n1/system",
                peer_uri="qemu+ssh://root@n1/system",
                addresses=("10.0.0.1", "192.168.9.1"),
                credentials="lab n1",
            ),
            NodeConfig(
                name=NodeId("n2"),
                uri="qemu+ssh://root@n2:2222/system?keyfile=/home/a/key",
                peer_uri="qemu+tls://n2/system",
                ssh="root@n2:2222",
            ),
        ),
        migration=MigrationLimits(
            outgoing_per_node=3,
            networks=("10.20.0.0/24", "fd00::/64"),
            convergence=Convergence(pause_steps_ms=(100, 400)),
        ),
        placement=PlacementPolicy(cpu_overcommit=2.0),
        shared_paths=("/srv/vms",),
    )


def test_how_moves_go_and_what_is_tried_again_is_read(prod: Path) -> None:
    limits = 'networks = ["10.20.0.0/24", "fd00::/64"]'
    values = ("times = 0", "first_s = 2", "target_failures = 5", "batch_failures = 1", "batch_percent = 50")
    retry = "\n".join(["[migration.retry]", *values])
    prod.write_text(
        GOOD.replace(limits, f"{limits}\nparallel_connections = 4\nencrypt = true").replace(
            "[storage]", f"{retry}\n\n[storage]"
        )
    )
    migration = read_cluster_file(prod).migration
    assert (migration.parallel_connections, migration.encrypt) == (4, True)
    assert migration.retry == RetryPolicy(
        times=0, first_s=2.0, target_failures=5, batch_failures=1, batch_percent=50
    )
    assert migration.convergence == Convergence(pause_steps_ms=(100, 400))


def test_the_shortest_file_takes_names_from_file_and_uri(tmp_path: Path) -> None:
    path = tmp_path / "berlin.toml"
    path.write_text('[[nodes]]\nuri = "qemu:///system"\n[[nodes]]\nuri = "xen://host-b/"\n')
    config = read_cluster_file(path)
    assert config.name == "berlin"
    assert [node.name for node in config.nodes] == ["n1", "host-b"]


# (what stands in the good file, what replaces it, the whole message)
REFUSED = [
    (
        "outgoing_per_node = 3",
        'outgoing_per_node = "two"',
        'line 21: migration.outgoing_per_node = "two": needs a whole number from 1 to 64',
    ),
    (
        "outgoing_per_node = 3",
        "outgoing_per_node = true",
        "line 21: migration.outgoing_per_node = true: needs a whole number from 1 to 64",
    ),
    (
        "outgoing_per_node = 3",
        "outgoing_per_node = 0",
        "line 21: migration.outgoing_per_node = 0: needs a whole number from 1 to 64",
    ),
    (
        "outgoing_per_node",
        "outgoing_per_nodes",
        "line 21: migration.outgoing_per_nodes: there is no such key (did you mean outgoing_per_node?)",
    ),
    ("[storage]", "[storag]", "line 27: storag: there is no such key (did you mean storage?)"),
    (
        'ssh = "root@n2:2222"',
        "quorum = 1",
        "line 18: node 2: quorum: there is no such key "
        "(known here: name, uri, peer_uri, addresses, ssh, bmc, credentials)",
    ),
    (
        'ssh = "root@n2:2222"',
        'password = "hunter2"',
        "line 18: node 2: password: secrets are not kept in cluster files; the key ring asks for them",
    ),
    (
        "root@n1",
        "root:hunter2@n1",
        "line 8: node 1: uri: needs a URI without a password: passwords belong in the key ring",
    ),
    (
        'ssh = "root@n2:2222"',
        'bmc = "ipmi://admin:hunter2@bmc1"',
        "line 18: node 2: bmc: needs an address without a password: passwords belong in the key ring",
    ),
    ('name = "n1"', 'name = "N2"', 'line 15: node 2: name = "n2": node 1 has the same name'),
    (
        'uri = "qemu+ssh://root@n2:2222/system?keyfile=/home/a/key"',
        'name = "other"\nuri = "qemu+ssh://root@N1/system"',
        'line 17: node 2: uri = "qemu+ssh://root@N1/system": node 1 has the same uri',
    ),
    (
        'uri = "qemu+ssh://root@n2:2222/system?keyfile=/home/a/key"',
        "",
        'line 15: node 2: uri: missing; needs a libvirt URI such as "qemu+ssh://root@n1/system"',
    ),
    (
        "qemu+tls://n2/system",
        "n2",
        'line 17: node 2: peer_uri = "n2": needs a libvirt URI such as "qemu+ssh://root@n1/system"',
    ),
    (
        "n2:2222/system?",
        "n2:70000/system?",
        'line 16: node 2: uri = "qemu+ssh://root@n2:70000/system?keyfile=/home/a/key": '
        'needs a libvirt URI such as "qemu+ssh://root@n1/system" (Port out of range 0-65535)',
    ),
    (
        '"192.168.9.1"',
        '"n1.lan"',
        'line 9: node 1: addresses = ["10.0.0.1", "n1.lan"]: needs an IP address such as "10.20.0.7"',
    ),
    (
        "10.20.0.0/24",
        "10.20.0.1/24",
        'line 22: migration.networks = ["10.20.0.1/24", "fd00::/64"]: '
        'needs a network such as "10.20.0.0/24"; did you mean "10.20.0.0/24"',
    ),
    (
        "[100, 400]",
        "[400, 100]",
        "line 25: migration.convergence.pause_steps_ms = [400, 100]: "
        "needs a list of 1 to 16 rising whole numbers from 1 to 60000 (ms)",
    ),
    (
        "pause_steps_ms = [100, 400]",
        "auto_converge_max_percent = 10",
        "line 25: migration.convergence.auto_converge_max_percent = 10: "
        "needs at least auto_converge_initial_percent, which is 20",
    ),
    (
        '"/srv/vms/"',
        '"/"',
        'line 28: storage.shared_paths = ["/"]: needs an absolute path below / such as "/srv/vms"',
    ),
    (
        '"/srv/vms/"',
        '"/srv/../etc"',
        'line 28: storage.shared_paths = ["/srv/../etc"]: needs an absolute path below / such as "/srv/vms"',
    ),
    (
        "cpu_overcommit = 2",
        "cpu_overcommit = nan",
        "line 31: placement.cpu_overcommit = NaN: needs a number from 0.1 to 100",
    ),
    (
        "outgoing_per_node = 3",
        "parallel_connections = 65",
        "line 21: migration.parallel_connections = 65: needs a whole number from 0 to 64",
    ),
    (
        "outgoing_per_node = 3",
        'encrypt = "yes"',
        'line 21: migration.encrypt = "yes": needs true or false',
    ),
    (
        "[migration.convergence]",
        "parallel_connections = 2\n[migration.convergence]\npost_copy = true",
        "line 26: migration.convergence.post_copy = true: does not go together with parallel_connections = 2",
    ),
    (
        "[migration.convergence]\npause_steps_ms = [100, 400]",
        "[migration.retry]\ntimes = 21",
        "line 25: migration.retry.times = 21: needs a whole number from 0 to 20",
    ),
    (
        "[migration.convergence]\npause_steps_ms = [100, 400]",
        "[migration.retry]\nfirst_s = 0",
        "line 25: migration.retry.first_s = 0: needs a number from 0.1 to 3600",
    ),
    (
        "[migration.convergence]\npause_steps_ms = [100, 400]",
        "[migration.retry]\nbatch_percent = 0",
        "line 25: migration.retry.batch_percent = 0: needs a whole number from 1 to 100",
    ),
    (
        "[migration.convergence]\npause_steps_ms = [100, 400]",
        "[migration.retry]\nbatch_failure = 3",
        "line 25: migration.retry.batch_failure: there is no such key (did you mean batch_failures?)",
    ),
    (
        "outgoing_per_node = 3",
        "retry = 3",
        "line 21: migration.retry = 3: needs a table [migration.retry]",
    ),
    ('"#123abc"', '"blue"', 'line 4: colour = "blue": needs a colour such as "#7a5cff"'),
    ("format = 1", "format = 2", "line 2: format = 2: this Muster reads format 1"),
    (
        "[storage]\n",
        "storage\n",
        "line 27, column 8: not valid TOML: expected '=' after a key in a key/value pair",
    ),
    ("cpu_overcommit = 2", 'name = "x', "line 31, column 10: not valid TOML"),
    ('name = "n1"', 'name = "n 1"', 'line 7: node 1: name = "n 1": needs a name of 1 to 128 characters'),
    ('name = "lab"', 'name = "a\\u001bb"', 'line 3: name = "a\\u001bb": needs a name of 1 to 64 printable'),
]


@pytest.mark.parametrize(("old", "new", "message"), REFUSED, ids=[new[:30] for _, new, _ in REFUSED])
def test_a_bad_key_is_refused_with_line_value_and_range(prod: Path, old: str, new: str, message: str) -> None:
    assert GOOD.count(old) >= 1
    said = refusal(prod, GOOD.replace(old, new, 1))
    assert said.startswith(f"prod.toml, {message}")
    assert said.endswith(". Nothing was loaded.")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no nodes"),
        ("nodes = 3", "nodes: needs one [[nodes]] table per node"),
        ("x = " + "[" * 100_000, "nests too deeply"),
        ("x = " + "9" * 10_000, "too long a number"),
        ("#" * (MAX_BYTES + 1), "larger than 1 MiB"),
        ("".join(f'[[nodes]]\nuri = "qemu+ssh://n{i}/system"\n' for i in range(65)), "65 nodes"),
        (
            "migration = 3\n[[nodes]]\nuri = 'qemu:///system'",
            "line 1: migration = 3: needs a table [migration]",
        ),
        (
            'nodes = [{uri = "test:///default"},\n {uri = "foo"}]',
            'line 1: node 2: uri = "foo": needs a libvirt',
        ),
    ],
    ids=["empty", "no tables", "deep", "long", "large", "many nodes", "no table", "inline"],
)
def test_what_is_no_cluster_file_is_one_clear_message(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path / "x.toml", text)


def test_a_file_that_cannot_be_read_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml: No such file"):
        read_cluster_file(tmp_path / "nowhere.toml")
    with pytest.raises(UserError, match="Is a directory"):
        read_cluster_file(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'format = 1\nname = "M\xfcnchen"\n')
    with pytest.raises(UserError, match=r"latin\.toml, line 2: not UTF-8 text"):
        read_cluster_file(tmp_path / "latin.toml")


def test_a_line_is_found_behind_strings_and_arrays_over_many_lines(tmp_path: Path) -> None:
    text = 'name = """\nx = 1\n[migration]\n"""\n'
    assert "line 1: name" in refusal(tmp_path / "x.toml", text + "[[nodes]]\nuri = 'qemu:///system'\n")
    text = GOOD.replace('"10.0.0.1",', '"10.0.0.1", # ]\n\n').replace('"#123abc"', "'#123abc'")
    assert "line 33: placement.cpu" in refusal(tmp_path / "x.toml", text.replace("= 2\n", "= 0\n"))


@pytest.mark.parametrize(
    ("uri", "peer"),
    [
        ("qemu+ssh://root@n1/system", True),
        ("qemu+tls://n1/system?no_verify=1", True),
        ("ch+ssh://n1/system", True),
        ("qemu+ssh://root@n1/system?keyfile=/k", False),
        ("qemu+ssh://root@n1/system?socket=/run/x", False),
        ("qemu:///system", False),
        ("qemu+unix:///system?socket=/run/n1/sock", False),
        ("qemu+ext://n1/system?command=/x", False),
        ("qemu+tcp://127.0.0.1/system", False),
        ("qemu+tcp://[::1]/system", False),
        ("qemu+ssh://localhost/system", False),
        ("test:///default", False),
    ],
)
def test_the_uri_for_other_nodes_is_the_own_one_if_nothing_in_it_is_local(uri: str, peer: bool) -> None:
    assert default_peer_uri(uri) == (uri if peer else None)


def test_uris_alone_make_a_cluster() -> None:
    config = config_from_uris(["qemu+ssh://root@a/system", "qemu+tls://b/system"], read_only=True)
    assert [node.name for node in config.nodes] == ["a", "b"]
    assert config.read_only
    two_worlds = config_from_uris(["test:///default", "test:///default"])
    assert [node.name for node in two_worlds.nodes] == ["n1", "n2"]
    same_host = config_from_uris(["qemu+ssh://a/system", "qemu+ssh://a/session"])
    assert [node.name for node in same_host.nodes] == ["a-1", "a-2"]
    with pytest.raises(UserError, match=r"--connect: node 1: uri = .*needs a libvirt URI"):
        config_from_uris(["localhost"])


# --- writing ---------------------------------------------------------------------------------


def test_an_edit_touches_only_what_changed(prod: Path) -> None:
    config = read_cluster_file(prod)
    prod.chmod(0o644)
    write_cluster_file(
        prod,
        replace(
            config,
            read_only=True,
            migration=replace(
                config.migration,
                outgoing_per_node=1,
                convergence=replace(config.migration.convergence, post_copy=True),
            ),
            work=WorkLimits(saves_per_node=1),
        ),
    )
    assert prod.read_text() == (
        GOOD.replace('colour = "#123abc"\n', 'colour = "#123abc"\nread_only = true\n')
        .replace("outgoing_per_node = 3", "outgoing_per_node = 1")
        .replace("[100, 400]\n", "[100, 400]\npost_copy = true\n")
        + "\n[work]\nsaves_per_node = 1\n"
    )


def test_how_moves_go_and_what_is_tried_again_is_written_back(prod: Path) -> None:
    config = read_cluster_file(prod)
    migration = replace(
        config.migration,
        parallel_connections=8,
        encrypt=True,
        retry=RetryPolicy(times=5, first_s=0.5, batch_percent=10),
    )
    write_cluster_file(prod, replace(config, migration=migration))
    written = prod.read_text()
    for line in ("parallel_connections = 8", "encrypt = true", "[migration.retry]", "first_s = 0.5"):
        assert written.count(line) == 1
    assert "target_failures" not in written  # its default
    assert read_cluster_file(prod).migration == migration
    write_cluster_file(prod, config)
    assert read_cluster_file(prod) == config


def test_nodes_come_and_go_without_touching_the_others(prod: Path) -> None:
    config = read_cluster_file(prod)
    new = NodeConfig(name=NodeId("n3"), uri="qemu+tls://n3/system")
    write_cluster_file(prod, replace(config, nodes=(config.nodes[0], new)))
    assert "# the first" in prod.read_text()
    assert "n2" not in prod.read_text()
    assert read_cluster_file(prod).nodes == (config.nodes[0], replace(new, peer_uri="qemu+tls://n3/system"))


def test_unchanged_means_not_a_byte(prod: Path) -> None:
    write_cluster_file(prod, read_cluster_file(prod))
    assert prod.read_text() == GOOD


def test_a_value_that_is_not_allowed_is_not_written(prod: Path) -> None:
    config = read_cluster_file(prod)
    with pytest.raises(UserError, match=r"cluster_limit = -1: needs .* Nothing was written"):
        write_cluster_file(prod, replace(config, migration=replace(config.migration, cluster_limit=-1)))
    assert prod.read_text() == GOOD


_names = st.from_regex(r"[A-Za-z][A-Za-z0-9 _.\-äß]{0,20}[A-Za-z0-9]", fullmatch=True)
_whole = st.integers(min_value=1, max_value=64)
_nodes = st.lists(st.integers(0, 99), min_size=1, max_size=8, unique=True).map(
    lambda numbers: tuple(
        NodeConfig(
            name=NodeId(f"node-{number}"),
            uri=f"qemu+tls://h{number}/system",
            peer_uri=f"qemu+tls://h{number}.peer/system" if number % 2 else f"qemu+tls://h{number}/system",
            addresses=(f"10.0.0.{number}",) if number % 3 else (),
            ssh=f"root@h{number}" if number % 5 else None,
        )
        for number in numbers
    )
)
_configs = st.builds(
    ClusterConfig,
    name=_names,
    colour=st.from_regex(r"#[0-9a-f]{6}", fullmatch=True),
    nodes=_nodes,
    migration=st.builds(
        MigrationLimits,
        outgoing_per_node=_whole,
        cluster_limit=st.integers(0, 100),
        networks=st.sampled_from([(), ("10.0.0.0/8",), ("fd00::/64", "10.1.0.0/16")]),
        parallel_connections=st.integers(0, 64),
        encrypt=st.booleans(),
        convergence=st.builds(Convergence, post_copy=st.booleans(), time_out_s=st.integers(0, 9999)),
        retry=st.builds(RetryPolicy, times=st.integers(0, 20), first_s=st.floats(0.1, 3600)),
    ).filter(lambda limits: not limits.convergence.post_copy or limits.parallel_connections < 2),
    work=st.builds(WorkLimits, starts_per_node=_whole),
    placement=st.builds(PlacementPolicy, cpu_overcommit=st.floats(0.1, 100)),
    shared_paths=st.sampled_from([(), ("/srv/a",), ("/srv/a", "/srv/b c")]),
    read_only=st.booleans(),
)


@given(first=_configs, second=_configs)
def test_what_is_written_is_read_back_also_over_another(
    tmp_path_factory: pytest.TempPathFactory, first: ClusterConfig, second: ClusterConfig
) -> None:
    path = tmp_path_factory.mktemp("round") / "c.toml"
    write_cluster_file(path, first)
    assert read_cluster_file(path) == first
    write_cluster_file(path, second)
    again = read_cluster_file(path)
    assert replace(again, nodes=second.nodes) == second
    assert {node.name: node for node in again.nodes} == {node.name: node for node in second.nodes}


# --- the configured clusters -----------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> ClusterFiles:
    return ClusterFiles(tmp_path / "clusters", tmp_path / "last-used.json")


def config(name: str) -> ClusterConfig:
    return config_from_uris(["qemu+ssh://n1/system"], name=name)


def test_added_clusters_are_listed_found_and_removed(files: ClusterFiles, tmp_path: Path) -> None:
    assert files.configured() == ()
    assert files.only() is None
    lab = files.add(config("Lab"))
    assert stat.S_IMODE(lab.stat().st_mode) == 0o600
    assert stat.S_IMODE(lab.parent.stat().st_mode) == 0o700
    assert files.only() == lab
    prod = files.add(config("prod/äöü"))
    assert prod.parent == lab.parent
    assert [each.name for each in files.configured()] == ["Lab", "prod/äöü"]
    assert files.find("lab") == lab
    assert files.load("prod/äöü") == config("prod/äöü")
    with pytest.raises(UserError, match=r"Several clusters .* Configured: Lab, prod/äöü"):
        files.only()
    with pytest.raises(UserError, match="There is a cluster named"):
        files.add(config("LAB"))
    kept = files.remove("Lab")
    assert kept.exists()
    assert [each.name for each in files.configured()] == ["prod/äöü"]


def test_a_name_that_is_nothing_or_two_things_is_refused_with_the_names(
    files: ClusterFiles, tmp_path: Path
) -> None:
    files.add(config("lab"))
    with pytest.raises(UserError, match=r'no cluster or cluster file "lap". Configured: lab'):
        files.find("lap")
    copy = tmp_path / "clusters" / "copy.toml"
    write_cluster_file(copy, config("lab"))
    with pytest.raises(UserError, match=r"ambiguous.*copy\.toml"):
        files.find("lab")
    assert files.find(str(copy)) == copy
    outside = tmp_path / "outside.toml"
    write_cluster_file(outside, config("outside"))
    with pytest.raises(UserError, match="not among the configured"):
        files.remove(str(outside))
    assert outside.exists()


def test_a_broken_file_is_listed_with_its_trouble(files: ClusterFiles, tmp_path: Path) -> None:
    files.add(config("lab"))
    (tmp_path / "clusters" / "bad.toml").write_text("nodes = 3")
    bad, good = files.configured()
    assert (bad.name, good.name) == ("bad", "lab")
    assert "bad.toml, line 1: nodes" in bad.trouble


def test_the_last_used_are_remembered_while_they_exist(files: ClusterFiles, tmp_path: Path) -> None:
    assert files.last_used() == ()
    lab, prod = files.add(config("lab")), files.add(config("prod"))
    files.remember([prod, lab])
    assert files.last_used() == (prod, lab)
    prod.unlink()
    assert files.last_used() == (lab,)
    (tmp_path / "last-used.json").write_text("{")
    assert files.last_used() == ()
