"""The proxies that Portico is compared to: how each is configured, with as many threads as there are cores.

Each function writes what its proxy needs to `folder` and gives back the command that runs it in the foreground.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stage import StartError, run

CORES = os.cpu_count() or 1
CONNECTIONS = 6_000


@dataclass(frozen=True)
class Site:
    """Where a peer is to listen, what it has behind it, and where files may be put."""

    port: int
    spare_port: int
    nodes: list[int]
    folder: Path
    installed: Path


@dataclass(frozen=True)
class Peer:
    """`clustered`: in front of the cluster; otherwise in front of the standalone node, None: of nothing."""

    command: Callable[[Site], list[str]]
    clustered: bool | None


def program(name: str, folder: Path | None = None) -> str:
    path = os.pathsep.join([str(folder or ""), os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if not found:
        raise StartError(f"{name} is not installed")
    return found


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def floor(site: Site) -> list[str]:
    binary = str(site.installed / "floor")
    run([program("cc"), "-O2", "-o", binary, str(Path(__file__).with_name("floor.c"))])
    return [binary, str(site.port)]


def envoy(site: Site) -> list[str]:
    config = write(site.folder / "envoy.json", json.dumps(envoy_config(site), indent=2))
    binary = program("envoy", site.installed / "venv" / "bin")
    return [binary, "-c", config, "--concurrency", str(CORES), "--log-level", "error", "--disable-hot-restart"]


def envoy_config(site: Site) -> dict:
    def address(port: int) -> dict:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def typed(kind: str, **values: object) -> dict:
        return {"@type": f"type.googleapis.com/{kind}", **values}

    redis_proxy = typed(
        "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        stat_prefix="redis",
        settings={"op_timeout": "5s", "enable_redirection": True},
        prefix_routes={"catch_all_route": {"cluster": "nodes"}},
    )
    cluster_type = typed(
        "google.protobuf.Struct",
        value={
            "cluster_refresh_rate": "5s",
            "cluster_refresh_timeout": "2s",
            "redirect_refresh_interval": "5s",
            "redirect_refresh_threshold": 5,
        },
    )
    listener = {
        "name": "redis",
        "address": address(site.port),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.redis_proxy", "typed_config": redis_proxy}]}],
    }
    cluster = {
        "name": "nodes",
        "connect_timeout": "2s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.redis", "typed_config": cluster_type},
        "load_assignment": {
            "cluster_name": "nodes",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}} for port in site.nodes]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def haproxy(site: Site) -> list[str]:
    config = f"""
global
    nbthread {CORES}
    maxconn {CONNECTIONS}
defaults
    mode tcp
    timeout connect 5s
    timeout client 10m
    timeout server 10m
listen redis
    bind 127.0.0.1:{site.port}
    server node 127.0.0.1:{site.nodes[0]}
"""
    return [program("haproxy"), "-db", "-f", write(site.folder / "haproxy.cfg", config)]


def twemproxy(site: Site) -> list[str]:
    """It has one thread, whatever the cores."""
    config = f"""
redis:
  listen: 127.0.0.1:{site.port}
  redis: true
  hash: murmur
  distribution: ketama
  backlog: 4096
  servers:
   - 127.0.0.1:{site.nodes[0]}:1
"""
    path = write(site.folder / "twemproxy.yml", config)
    return [program("nutcracker"), "-c", path, "-s", str(site.spare_port), "-v", "1"]


PEERS = {
    "floor": Peer(floor, clustered=None),
    "envoy": Peer(envoy, clustered=True),
    "haproxy": Peer(haproxy, clustered=False),
    "twemproxy": Peer(twemproxy, clustered=False),
}
