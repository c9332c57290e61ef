"""Taking sub-merchants on at WeChat Pay (特约商户进件): pictures and applications."""
