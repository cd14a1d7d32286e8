"""A home folder with the `cer` command that works on it, for the case folders."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

REPOSITORY = Path(__file__).resolve().parents[2]
CER = [sys.executable, "-c", "from cer_pipeline.cli import main; main()"]
CORPUS = "cases"


@dataclass(frozen=True)
class Home:
    """A home folder with the command that works on it."""

    root: Path

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {"CER_HOME": str(self.root), "PYTHONPATH": str(REPOSITORY)}

    def cer(self, *words: str, env: dict[str, str] | None = None, timeout: float = 1800) -> tuple[int, str]:
        """Exit code and all output."""
        done = subprocess.run(
            [*CER, *words],
            env=env or self.env,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def query(self, sql: str, corpus: str = CORPUS) -> list[tuple[Any, ...]]:
        """Rows of a query in which {TABLE} stands for a table of the corpus."""
        connection = duckdb.connect()
        while "{" in sql:
            name = sql[sql.index("{") + 1 : sql.index("}")]
            glob = self.root / "tables" / name / f"corpus={corpus}" / "*" / "data.parquet"
            sql = sql.replace(f"{{{name}}}", f"read_parquet('{glob}', union_by_name=true)")
        return connection.sql(sql).fetchall()

    def words(self, video: str) -> list[str]:
        """Words of a video in order of time, each once, in lower case without punctuation."""
        rows = self.query(f"""
            select distinct w.start_s, w.word
            from (select unnest(words) w from {{transcripts}} where video_id = '{video}' and status = 'ok')
            order by 1
        """)
        return ["".join(c for c in word.lower() if c.isalpha()) for _, word in rows]
