"""Each package declares what it imports and imports what it declares; all four are one version."""

from __future__ import annotations

import pytest

from tests.packages.workspace import PACKAGES, Project, canonical, distributions, imported, names, projects

OURS = {f"rateway-{name}" for name in ("protocol", "client", "simulator")}


@pytest.mark.parametrize("project", projects(), ids=PACKAGES)
def test_what_is_imported_is_declared_and_what_is_declared_is_imported(project: Project) -> None:
    found = distributions(project)
    declared = project.dependencies | project.extras
    undeclared = {name: sorted(by) for name, by in found.items() if name not in declared}
    assert (undeclared, declared - set(found)) == ({}, set())


def test_an_import_inside_a_function_or_of_a_namespace_is_seen() -> None:
    source = "def f():\n    from backports import zstd\n    import a.b, c\nfrom .near import d\n"
    assert sorted(imported(source)) == ["a.b", "backports.zstd", "c"]


def test_all_four_are_one_version_and_need_each_other_in_that_version() -> None:
    found = projects()
    versions = {project.version for project in found}
    assert len(versions) == 1 and len(found) == 4
    (version,) = versions
    for project in found:
        declared = project.declared
        extras = declared.get("optional-dependencies", {}).values()
        listed = [*declared["dependencies"], *(each for extra in extras for each in extra)]
        own = [each for each in listed if names([each]) <= OURS]
        assert all(each.endswith(f"=={version}") for each in own), own
        assert canonical(project.name) == canonical(project.source.name)
        for file in (declared["readme"], *declared["license-files"]):
            assert (project.folder / file).stat().st_size > 0
