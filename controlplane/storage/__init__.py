"""What machines are made from and keep: templates, ISOs, volumes, pools and image stores."""
