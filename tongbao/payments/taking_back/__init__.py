"""What a refund asks of those who got shares of its payment; splits answer, refunds ask."""
