"""Files in which card schemes and acquirers tell of chargebacks, read by a declared layout."""
