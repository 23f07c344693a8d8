#!/bin/sh -e
systemctl enable --now nginx
