from tests.tracking.conftest import empty_store, layout, module_layout, module_monkeypatch, recipe

__all__ = ["empty_store", "layout", "module_layout", "module_monkeypatch", "recipe"]
