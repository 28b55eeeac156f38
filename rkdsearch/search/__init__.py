"""The search: space, proposals, decisions, the ledger behind them, and Ray's part."""
