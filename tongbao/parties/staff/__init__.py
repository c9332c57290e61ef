"""Staff: a merchant's own people, what each is there for, and in which stores."""
