"""Messages to people: SMS, mail and push, sent by tasks through a gateway that may be changed."""
