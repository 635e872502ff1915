"""The experiment across domains at its smoke budget; its models train their own transforms."""


def test_domains(tmp_path, smoke):
    smoke("domains", tmp_path, "domains-embedded", "learnt from")
