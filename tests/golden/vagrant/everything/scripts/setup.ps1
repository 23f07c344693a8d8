Write-Output $args
