"""One folder per channel, each speaking its real protocol behind `contract.channel.Channel`."""
