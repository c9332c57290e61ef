"""Taking sub-merchants on at Alipay (直付通二级商户进件): pictures and applications."""
