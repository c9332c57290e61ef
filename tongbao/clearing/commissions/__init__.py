"""Commissions (代理分润): what agents get of the fees of the merchants they brought."""
