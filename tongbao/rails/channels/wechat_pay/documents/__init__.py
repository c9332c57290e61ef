"""WeChat Pay's JSON documents as Structs, one module per family."""
