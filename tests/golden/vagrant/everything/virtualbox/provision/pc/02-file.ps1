$ErrorActionPreference = 'Stop'
$target = 'C:\Lab\index.html'
New-Item -ItemType Directory -Force -Path (Split-Path -Parent $target) | Out-Null
Move-Item -Force -LiteralPath 'C:/Windows/Temp/labctl-upload' -Destination $target
