"""The import contract of our own: a leading underscore is a boundary.

`import-linter` reads it through ``contract_types`` in ``pyproject.toml``.
"""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output


def home_of(module: str) -> str | None:
    """Return the package whose members may import ``module``; None when everybody may."""
    parts = module.split(".")
    for place, part in enumerate(parts):
        if part.startswith("_") and not part.endswith("__"):
            return ".".join(parts[:place])
    return None


class PrivateModules(Contract):
    """A module named ``_x`` is imported only from inside the package it lies in."""

    type_name = "private_modules"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002
        """Look at every direct import of every private module."""
        trespasses = [
            (importer, module, home)
            for module in sorted(graph.modules)
            if (home := home_of(module)) is not None
            for importer in sorted(graph.find_modules_that_directly_import(module))
            if importer != home and not importer.startswith(f"{home}.")
        ]
        return ContractCheck(kept=not trespasses, metadata={"trespasses": trespasses})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Say who looked into whose drawer."""
        for importer, module, home in check.metadata["trespasses"]:
            output.print_error(f"{importer} imports {module}, which is private to {home}.")
