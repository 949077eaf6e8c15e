from tests.tracking.conftest import empty_store, module_layout, module_monkeypatch

__all__ = ["empty_store", "module_layout", "module_monkeypatch"]
