"""Scripts that run in the sandbox, beside a candidate or beside a row's own test; `values` also outside."""
