"""The wallet's app: paying merchants' codes out of one's own electronic accounts."""
