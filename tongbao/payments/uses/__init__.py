"""What a payment counts against beside the money: its agreement's limits, its terminal's."""
