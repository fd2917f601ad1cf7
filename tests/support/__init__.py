"""What tests share: peers, servers, programs, doubles, fixtures."""
