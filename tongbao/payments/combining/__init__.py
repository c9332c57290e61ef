"""Combined payments (合单): a customer pays several orders, of several merchants, in one go."""
