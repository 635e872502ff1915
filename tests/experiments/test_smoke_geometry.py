"""The experiment on geometry at its smoke budget, and what the table of findings makes of it."""


def test_geometry(tmp_path, smoke, run_experiment):
    smoke("geometry", tmp_path, "geometry-embedded", "bits of a zero")
    assert "tapered against common" in run_experiment("findings", tmp_path, "findings")
