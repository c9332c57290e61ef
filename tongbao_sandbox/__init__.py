"""The outside world, simulated: WeChat Pay, Alipay and a bank, stateful and faithful."""
