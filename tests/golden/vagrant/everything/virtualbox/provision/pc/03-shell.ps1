$ErrorActionPreference = 'Stop'
Get-Service
