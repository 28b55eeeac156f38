"""Search: proposals, decisions at rungs, and the ledger behind them, without Ray."""
