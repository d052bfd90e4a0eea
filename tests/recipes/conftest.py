"""Marks of the recipes' tests."""


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(package, ...): packages that a recipe is about")
