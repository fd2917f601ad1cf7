"""A named group of upstream servers, and the policy that picks one."""
